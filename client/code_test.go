package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"peel/cell"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/client/socks"
)

func TestSOCKSCodes(t *testing.T) {
	ends := map[cell.EndReason]byte{
		cell.EndDone: 1, cell.EndMisc: 1, cell.EndResolveFailed: 4, cell.EndNotFound: 4, cell.EndRefused: 5, cell.EndPolicy: 2,
		cell.EndTimeout: 6, cell.EndUnreachable: 3, cell.EndReset: 5, cell.EndBusy: 1, cell.EndNotDirectory: 1, cell.EndInternal: 1,
		cell.EndProtocol: 1,
	}
	for r := cell.EndReason(1); r.Valid(); r++ {
		want, ok := ends[r]
		got := SOCKSCode(fmt.Errorf("client: tried 3 circuits: %w", &stream.EndError{Reason: r}))
		if !ok || got != want {
			t.Errorf("%v: %#02x, want %#02x (in the table: %v)", r, got, want, ok)
		}
		if got == socks.TTLExpired && !(&stream.EndError{Reason: r}).Temporary() {
			t.Errorf("%v: 06, and it is permanent", r)
		}
	}
	late := fmt.Errorf("client: waiting for a circuit: %w", context.DeadlineExceeded)
	for _, x := range []struct {
		err  error
		want byte
	}{
		{late, 6},
		{os.ErrDeadlineExceeded, 6},
		{context.Canceled, 1},
		{fmt.Errorf("client: path: no exit allows port 25 (%w)", path.ErrNoExit), 2},
		{errFull, 1},
		{ErrClosed, 1},
		{ErrNotRunning, 1},
		{&circuit.BuildError{Hop: 1, Err: errors.New("x")}, 1},
		{errors.New("client: target port: must be a number from 1 to 65535"), 1},
		{&notReadyError{at: stageConsensus, gaveUp: context.DeadlineExceeded}, 1},
		{&notReadyError{at: stageProbe, why: &stream.EndError{Reason: cell.EndTimeout}, gaveUp: late}, 1},
	} {
		if got := SOCKSCode(x.err); got != x.want {
			t.Errorf("%v: %#02x, want %#02x", x.err, got, x.want)
		}
	}
}
