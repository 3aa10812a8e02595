package directory

// The parsers without a look at signatures: what lies behind these is for every mutation to reach.

func ParseDescriptorUnsigned(text []byte) (*Descriptor, error) { return parseDescriptor(text, false) }

func ParseVoteUnsigned(text []byte) (*Vote, error) { return parseVote(text, false) }

func ParseCertificateUnsigned(text []byte) (Certificate, error) {
	r := newReader("certificate", text, MaxCertificate)
	c := r.certificate(false)
	return c, r.end()
}
