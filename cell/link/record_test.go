package link

import (
	"bytes"
	"fmt"
	"testing"

	"peel/cell"
)

func testKey(fill byte) []byte { return bytes.Repeat([]byte{fill}, keySize) }

// fillCells makes n cells that differ.
func fillCells(cells []cell.Cell) {
	for i := range cells {
		cells[i] = cell.Cell{}
		cells[i].SetCirc(cell.CircID(i + 1))
		cells[i].SetCommand(cell.CmdRelay)
		cells[i].Body()[7] = byte(i)
	}
}

// seal seals n cells into a record of its own.
func seal(t testing.TB, h *half, n int) []byte {
	t.Helper()
	wire := make([]byte, maxRecord)
	fillCells(space(wire)[:n])
	r, err := h.seal(wire, n)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordsOfEverySizeComeBack(t *testing.T) {
	out, in := newHalf(testKey(1)), newHalf(testKey(1))
	for n := 1; n <= maxCells; n++ {
		want := make([]cell.Cell, n)
		fillCells(want)
		r := seal(t, out, n)
		if size, err := recordSize(r); err != nil || size != len(r) {
			t.Fatalf("%d cells: recordSize = %d, %v, want %d", n, size, err, len(r))
		}
		cells, err := in.open(r)
		if err != nil {
			t.Fatalf("%d cells: %v", n, err)
		}
		if !bytes.Equal(cell.Bytes(cells), cell.Bytes(want)) {
			t.Fatalf("%d cells came back changed", n)
		}
	}
}

func TestOnlyWholeCellsMakeARecord(t *testing.T) {
	for n := 0; n < 1<<16; n++ {
		cells := (n - tagSize) / cell.Size
		good := n >= tagSize && n == tagSize+cells*cell.Size && cells >= 1 && cells <= 46
		if _, err := recordSize([]byte{byte(n >> 8), byte(n)}); (err == nil) != good {
			t.Fatalf("a record of %d bytes: %v", n, err)
		}
	}
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	r := seal(t, newHalf(testKey(1)), 1)
	for i := headerSize * 8; i < len(r)*8; i++ {
		bad := bytes.Clone(r)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := newHalf(testKey(1)).open(bad); err == nil {
			t.Fatalf("bit %d flipped, and the record opened", i)
		}
	}
	// The length is authenticated although it does not decide what is opened here.
	bad := bytes.Clone(r)
	bad[1] ^= 1
	if _, err := newHalf(testKey(1)).open(bad); err == nil {
		t.Fatal("the length was altered, and the record opened")
	}
}

func TestKeysMoveOnTogether(t *testing.T) {
	for _, start := range []struct {
		name           string
		records, bytes uint64
	}{
		{"records", ratchetRecords - 2, 0},
		{"bytes", 7, ratchetBytes - maxRecord - 10},
	} {
		t.Run(start.name, func(t *testing.T) {
			out, in := newHalf(testKey(1)), newHalf(testKey(1))
			for _, h := range []*half{out, in} {
				h.records, h.bytes = start.records, start.bytes
			}
			old := out.key
			moved := 0
			for i := range 5 {
				r := seal(t, out, maxCells)
				if _, err := in.open(r); err != nil {
					t.Fatalf("record %d: %v", i, err)
				}
				if out.key != in.key || out.records != in.records || out.bytes != in.bytes {
					t.Fatalf("after record %d the ends differ", i)
				}
				if out.key != old {
					moved, old = moved+1, out.key
					if i != 1 || out.records != 0 || out.bytes != 0 {
						t.Fatalf("the key moved after record %d, with %d records and %d bytes", i, out.records, out.bytes)
					}
				}
			}
			if moved != 1 {
				t.Fatalf("the key moved %d times, want once", moved)
			}
		})
	}
}

func TestRecordsAllocateNothing(t *testing.T) {
	out, in := newHalf(testKey(1)), newHalf(testKey(1))
	wire := make([]byte, maxRecord)
	if n := testing.AllocsPerRun(50, func() {
		r, err := out.seal(wire, 3)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.open(r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a record, want 0", n)
	}
}

func TestErasedKeyIsGone(t *testing.T) {
	h := newHalf(testKey(9))
	record := bytes.Clone(seal(t, h, 1))
	for range 2 { // twice is as well as once
		h.erase()
		if h.key != [keySize]byte{} {
			t.Error("the key is still there")
		}
		if _, err := h.seal(make([]byte, maxRecord), 1); err == nil {
			t.Error("it seals without a key")
		}
		if _, err := h.open(record); err == nil {
			t.Error("it opens without a key")
		}
	}
}

// FuzzInbox feeds any bytes, in any pieces, to the reader of records: what opens is what was sealed, in order.
func FuzzInbox(f *testing.F) {
	out := newHalf(testKey(1))
	var stream []byte
	for _, n := range []int{1, 2, 1} {
		stream = append(stream, seal(f, out, n)...)
	}
	f.Add(stream, uint16(1))
	f.Add(stream, uint16(1500))
	f.Add(stream, uint16(65535))
	f.Add(stream[:len(stream)-1], uint16(4096))
	f.Add(stream[1:], uint16(100))
	f.Add([]byte{}, uint16(1))
	f.Add([]byte{0xff, 0xff, 1, 2, 3}, uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		box, in := new(inbox), newHalf(testKey(1))
		defer box.release()
		nc := &pieces{rest: b, size: int(piece)%bigBuffer + 1}
		used := 0
		for box.fill(nc) == nil {
			for {
				r, err := box.record()
				if err != nil {
					return
				}
				if r == nil {
					break
				}
				if !bytes.Equal(r, b[used:used+len(r)]) {
					t.Fatal("a record is not what came")
				}
				whole := bytes.HasPrefix(stream, b[:used+len(r)])
				used += len(r)
				if _, err := in.open(r); (err == nil) != whole {
					t.Fatalf("open: %v, but the bytes so far being those sealed is %v", err, whole)
				} else if err != nil {
					return
				}
			}
		}
		if left := len(b) - used; left > maxRecord {
			t.Fatalf("%d bytes came and were not looked at", left)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{1, 8, maxCells} {
		b.Run(fmt.Sprintf("cells=%d", n), func(b *testing.B) {
			h, wire := newHalf(testKey(1)), make([]byte, maxRecord)
			b.SetBytes(int64(n * cell.Size))
			b.ReportAllocs()
			for b.Loop() {
				h.seal(wire, n)
			}
		})
	}
}

func BenchmarkSealOpen(b *testing.B) {
	for _, n := range []int{1, 8, maxCells} {
		b.Run(fmt.Sprintf("cells=%d", n), func(b *testing.B) {
			out, in, wire := newHalf(testKey(1)), newHalf(testKey(1)), make([]byte, maxRecord)
			b.SetBytes(int64(n * cell.Size))
			b.ReportAllocs()
			for b.Loop() {
				r, _ := out.seal(wire, n)
				if _, err := in.open(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
