package link_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// TestPageIsEnoughToTalk: an initiator written from spec/link.md alone, without code of this package, gets its circuit.
func TestPageIsEnoughToTalk(t *testing.T) {
	for _, first := range []byte{0x11, 0x12} {
		synctest.Test(t, func(t *testing.T) {
			cfg := linktest.Config(t, "responder")
			cfg.Network[5] = 5
			nc, nb := linktest.Pipe(linktest.Options{})
			var wg sync.WaitGroup
			defer func() {
				nc.Close()
				wg.Wait()
			}()
			wg.Go(func() {
				l, err := link.Accept(context.Background(), nb, cfg)
				if err != nil {
					t.Error(err)
					return
				}
				l.Serve(&host{})
			})

			// Section 2: the handshake.
			hc := hybrid.Config{
				Pattern:  hybrid.NK,
				Prologue: slices.Concat([]byte("peel link v1"), cfg.Network[:], cfg.ID[:]),
				Peer:     linktest.Public(cfg.Key),
			}
			if first == 0x12 {
				hc.Pattern, hc.Static = hybrid.IK, linktest.Key(t)
			}
			hs, m1, err := hybrid.Initiate(hc)
			if err != nil {
				t.Fatal(err)
			}
			nc.Write(append([]byte{first}, m1...))
			m2 := make([]byte, 1160)
			if _, err := io.ReadFull(nc, m2); err != nil {
				t.Fatal(err)
			}
			payload, secrets, err := hs.Finish(m2)
			if err != nil || len(payload) != 24 {
				t.Fatalf("payload of %d bytes, %v", len(payload), err)
			}
			keys := secrets.Expand("peel link v1 records", 64)

			// Section 3: records.
			out, in := gcm(t, keys[:32]), gcm(t, keys[32:])
			for i, c := range []cell.Cell{{}, packed(t, cell.DialBit+1, cell.CmdCreate, aCreate)} {
				record := out.Seal([]byte{1408 >> 8, 1408&255 + 16}, nonce(i), c[:], []byte{1408 >> 8, 1408&255 + 16})
				if _, err := nc.Write(record); err != nil {
					t.Fatal(err)
				}
			}
			record := make([]byte, 2+1408+16)
			if _, err := io.ReadFull(nc, record); err != nil {
				t.Fatal(err)
			}
			plain, err := in.Open(nil, nonce(0), record[2:], record[:2])
			if err != nil {
				t.Fatal(err)
			}
			want := packed(t, cell.DialBit+1, cell.CmdCreated, cell.Created{Credit: 64, Reply: aReply})
			if cell.Cell(plain) != want {
				t.Error("no CREATED came")
			}
		})
	}
}

func gcm(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func nonce(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4), uint64(i)) }

func packed(t *testing.T, id cell.CircID, cmd cell.Command, body cell.Body) (c cell.Cell) {
	t.Helper()
	if err := c.Pack(id, cmd, body); err != nil {
		t.Fatal(err)
	}
	return c
}
