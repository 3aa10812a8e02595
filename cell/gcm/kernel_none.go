//go:build !amd64 || purego

package gcm

// keys are what a key comes to, for a kernel; there is none here.
type keys struct{}

// supported returns what this machine can run, the fastest first.
func supported() []kernel { return []kernel{std} }

func (*keys) expand(*[KeySize]byte)         {}
func (*keys) block(*[16]byte)               {}
func (*keys) absorb(*[16]byte, []byte)      {}
func (*keys) seal(_, _ *[16]byte, _ []byte) {}
func (*keys) open(_, _ *[16]byte, _ []byte) {}
