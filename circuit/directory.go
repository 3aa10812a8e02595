package circuit

import (
	"context"
	"net"

	"peel/cell/link"
	"peel/circuit/stream"
)

// DialDirectory opens a stream to the directory of the node at the other end of a link, over a circuit of one hop that
// ends with the stream: what is still on its way at Close is lost, so read the answer first.
func DialDirectory(ctx context.Context, lc *link.Conn, cfg Config, node Hop) (net.Conn, error) {
	c, err := Build(ctx, lc, cfg, []Hop{node})
	if err != nil {
		return nil, err
	}
	s, err := c.DialDir(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &directoryStream{s, c}, nil
}

// directoryStream is a stream that takes its circuit with it.
type directoryStream struct {
	*stream.Stream
	circuit *Circuit
}

func (d *directoryStream) Close() error {
	err := d.Stream.Close()
	d.circuit.Close()
	return err
}
