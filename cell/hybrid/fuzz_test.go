package hybrid

import (
	"bytes"
	"testing"
)

// seeds gives the fuzzer, for each vector, the message and what is close to it.
func seeds(f *testing.F, message func(v vector) []byte) {
	f.Helper()
	n := 0
	for i, v := range readVectors(f) {
		m := message(v)
		f.Add(uint8(i), m)
		f.Add(uint8(i), m[:len(m)-1])
		f.Add(uint8(i), append(bytes.Clone(m), 0))
		f.Add(uint8(i), make([]byte, len(m)))
		flipped := bytes.Clone(m)
		flipped[len(m)/2] ^= 1
		f.Add(uint8(i), flipped)
		n++
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
	f.Add(uint8(0), []byte(nil))
}

// Whatever comes, Respond answers the request that was made for it and nothing else.
func FuzzRespond(f *testing.F) {
	vectors := readVectors(f)
	seeds(f, func(v vector) []byte { return v.Request })
	f.Fuzz(func(t *testing.T, which uint8, request []byte) {
		v := vectors[int(which)%len(vectors)]
		_, cr := v.configs(t)
		reply, s, err := Respond(cr, request, nil)
		if genuine := bytes.Equal(request, v.Request); (err == nil) != genuine {
			t.Fatalf("genuine: %v, error: %v", genuine, err)
		}
		if err == nil && len(reply) != ReplyOverhead || err != nil && (reply != nil || s != nil) {
			t.Fatalf("reply of %d bytes, error: %v", len(reply), err)
		}
	})
}

// Whatever comes, Finish takes the reply to its request and nothing else.
func FuzzFinish(f *testing.F) {
	vectors := readVectors(f)
	seeds(f, func(v vector) []byte { return v.Reply })
	f.Fuzz(func(t *testing.T, which uint8, reply []byte) {
		v := vectors[int(which)%len(vectors)]
		ci, _ := v.configs(t)
		c, _ := v.chances(t)
		i, _ := askedBy(t, ci, c)
		payload, s, err := i.Finish(reply)
		if genuine := bytes.Equal(reply, v.Reply); (err == nil) != genuine {
			t.Fatalf("genuine: %v, error: %v", genuine, err)
		}
		if err == nil && !bytes.Equal(payload, v.Payload) || err != nil && (payload != nil || s != nil) {
			t.Fatalf("payload %x, error: %v", payload, err)
		}
	})
}
