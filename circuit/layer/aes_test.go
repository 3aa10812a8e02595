package layer

import (
	"bytes"
	"crypto/aes"
	"testing"
)

// The sliced AES agrees with the standard library's, on each of the four blocks
// and both ways.
func TestSlicedAES(t *testing.T) {
	for i := range 200 {
		key, text := random(uint64(i), 16), random(uint64(1000+i), 64)
		ref, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 64)
		for b := 0; b < 64; b += 16 {
			ref.Encrypt(want[b:], text[b:])
		}
		var round schedule
		var s sliced
		round.expand(key)
		round.slice(&s)
		blocks := [64]byte(text)
		s.encrypt(&blocks)
		if !bytes.Equal(blocks[:], want) {
			t.Fatalf("key %x: %x enciphered is\n%x, not\n%x", key, text, blocks, want)
		}
		s.decrypt(&blocks)
		if !bytes.Equal(blocks[:], text) {
			t.Fatalf("key %x: %x deciphered is\n%x, not\n%x", key, want, blocks, text)
		}
	}
}
