//go:build !purego

// The kernel for VAES and VPCLMULQDQ on 512 bits, and AVX-512F, BW and VL: four
// blocks to a register. kernel_amd64.h explains the whole; what differs is said
// here.
//
// A machine multiplies as many of these registers in a second as it does halves
// or quarters of them, or not many fewer, so this kernel has half the work of
// the one on 256 bits while it hashes, and less to decode while it enciphers.
//
// Hash. Groups are of sixteen blocks, for one of eight would be done before the
// reduction of the one before it is; so the powers begin with KU^16 here, in
// keys.high, which continues in keys.ku.
//
// Last bytes. Loads and stores are masked by K1, which has a bit a byte; bytes
// that are masked are not touched, and read as zero.
//
// Keystream. VAESENCLAST ends in the addition of the last round key. It is given
// the sum of this key and the body.
//
// Registers beside those of kernel_amd64.h:
//
//	      while hashing                    while adding keystream
//	16-19 KU^16, KU^12, KU^8, KU^4         16-26 round keys
//	20-23 the halves of these, added
//	31    field in all lanes               12    what the counter gains
//
//	      while doing both, the above but  24-27 keystream
//	      for the round keys, and          28    round key

#include "textflag.h"
#include "go_asm.h"
#include "kernel_amd64.h"

// func encipherVAES512(s *keys, prev, nonce *[tagSize]byte, body *byte, n, stride, count int, ad byte) (done int)
TEXT ·encipherVAES512(SB), NOSPLIT, $0-72
	ENCIPHER(hashVAES512, streamVAES512, bothVAES512)
	VZEROUPPER
	RET

// func decipherVAES512(s *keys, prev, _ *[tagSize]byte, body *byte, n int, ad byte)
TEXT ·decipherVAES512(SB), NOSPLIT, $0-41
	DECIPHER(hashVAES512, streamVAES512)
	VZEROUPPER
	RET

#define ZERO(A) VPXORQ A, A, A

// SUMOFHALVES gives SUM, the sum of the halves of A.
#define SUMOFHALVES(A, SUM) \
	VPSHUFD $0x4e, A, SUM \
	VPXORQ  A, SUM, SUM

// MULZ adds the products of the blocks Z0 and powers H, whose halves' sums are
// in SUM, to Z1 to Z3. It changes Z5 and Z6.
#define MULZ(H, SUM) \
	VPCLMULQDQ $0x00, H, Z0, Z5   \
	VPCLMULQDQ $0x11, H, Z0, Z6   \
	VPXORQ     Z5, Z1, Z1         \
	VPXORQ     Z6, Z2, Z2         \
	SUMOFHALVES(Z0, Z5)           \
	VPCLMULQDQ $0x00, SUM, Z5, Z6 \
	VPXORQ     Z6, Z3, Z3

// MULROW is MULZ by the powers that are in memory at POWERS. It changes Z4 and
// Z8 besides.
#define MULROW(POWERS) \
	VMOVDQU64 POWERS, Z4 \
	SUMOFHALVES(Z4, Z8)  \
	MULZ(Z4, Z8)

// REDUCEZ gives Z7, the elements that Z1 to Z3 are, lane by lane, as REDUCE does.
// VPTERNLOGQ with 0x96 adds two registers to a third.
#define REDUCEZ \
	VPTERNLOGQ $0x96, Z1, Z2, Z3    \
	VPCLMULQDQ $0x10, Z31, Z1, Z5   \
	VPSHUFD    $0x4e, Z1, Z1        \
	VPTERNLOGQ $0x96, Z1, Z5, Z3    \
	VPCLMULQDQ $0x10, Z31, Z3, Z7   \
	VPSHUFD    $0x4e, Z3, Z3        \
	VPTERNLOGQ $0x96, Z3, Z2, Z7

// FOLD adds up the lanes of Z7 in X7.
#define FOLD \
	VEXTRACTI64X4 $1, Z7, Y5 \
	VPXOR         Y5, Y7, Y7 \
	VEXTRACTI128  $1, Y7, X5 \
	VPXOR         X5, X7, X7

// KEEP brings a power to all lanes of H and the sum of its halves to SUM.
#define KEEP(POWER, H, SUM) \
	VBROADCASTI32X4 POWER, H \
	SUMOFHALVES(H, SUM)

// MASK selects the first N bytes of a register in K1; all for 64 or more.
#define MASK(N) \
	MOVQ  $-1, AX    \
	BZHIQ N, AX, AX  \
	KMOVQ AX, K1

// KEEPPOWERS does so with those that a group takes.
#define KEEPPOWERS \
	KEEP(keys_high+BLOCKS(0)(R8), Z16, Z20) \
	KEEP(keys_high+BLOCKS(4)(R8), Z17, Z21) \
	KEEP(keys_ku+BLOCKS(0)(R8), Z18, Z22)   \
	KEEP(keys_ku+BLOCKS(4)(R8), Z19, Z23)

// FOUR hashes four blocks, if there would be fewer for the end, and goes to APART
// if not.
#define FOUR(APART) \
	LEAQ   -1(CX), AX        \
	ANDQ   $255, AX          \
	CMPQ   AX, $BLOCKS(3)    \
	JGE    APART             \
	ZERO(Z1)                 \
	ZERO(Z2)                 \
	ZERO(Z3)                 \
	VPXORQ (DX), Z7, Z0      \
	MULROW(keys_ku+BLOCKS(4)(R8)) \
	REDUCEZ                  \
	FOLD                     \
	ADDQ   $BLOCKS(4), DX    \
	SUBQ   $BLOCKS(4), CX

// hashVAES512: X7 = the hash that continues on X7 with CX bytes at DX, CX > 0.
//
// The lanes go separate ways until the end, as in hashVAES: each takes every
// fourth block and multiples of the fourth power, and the last blocks take the
// powers that are theirs. For this there must be four of them or more.
TEXT hashVAES512<>(SB), NOSPLIT, $0-0
	VBROADCASTI32X4 field<>(SB), Z31
	CMPQ            CX, $BLOCKS(16)
	JLE             tail
	FOUR(apart)
	CMPQ            CX, $BLOCKS(16)
	JLE             tail

apart:
	KEEPPOWERS

group:
	ZERO(Z1)
	ZERO(Z2)
	ZERO(Z3)
	VMOVDQU64 BLOCKS(4)(DX), Z0
	MULZ(Z17, Z21)
	VMOVDQU64 BLOCKS(8)(DX), Z0
	MULZ(Z18, Z22)
	VMOVDQU64 BLOCKS(12)(DX), Z0
	MULZ(Z19, Z23)
	VPXORQ    (DX), Z7, Z0
	MULZ(Z16, Z20)
	REDUCEZ
	ADDQ      $BLOCKS(16), DX
	SUBQ      $BLOCKS(16), CX
	CMPQ      CX, $BLOCKS(16)
	JGT       group

tail:
	// 1 to 256 bytes: as many powers from the end as there are blocks.
	LEAQ 15(CX), AX
	ANDQ $-16, AX
	LEAQ keys_ku+BLOCKS(8)(R8), R10
	SUBQ AX, R10
	ZERO(Z1)
	ZERO(Z2)
	ZERO(Z3)

row:
	CMPQ   CX, $BLOCKS(4)
	JLE    last
	VPXORQ (DX), Z7, Z0
	ZERO(Z7)
	MULROW((R10))
	ADDQ   $BLOCKS(4), DX
	ADDQ   $BLOCKS(4), R10
	SUBQ   $BLOCKS(4), CX
	JMP    row

last:
	// What is loaded here beyond the powers meets zeros.
	MASK(CX)
	VMOVDQU8.Z (DX), K1, Z0
	VPXORQ     Z7, Z0, Z0
	MULROW((R10))
	REDUCEZ
	FOLD
	RET

// ROUNDZ2 and ROUNDZ4 do one round of two or four registers.
#define ROUNDZ2(RK, A, B) \
	VAESENC RK, A, A \
	VAESENC RK, B, B

#define ROUNDZ4(RK, A, B, C, D) \
	ROUNDZ2(RK, A, B) \
	ROUNDZ2(RK, C, D)

// WHITENZ is WHITEN, and XORBODYZ the last round that adds the body.
#define WHITENZ(N, A) VPXORQ count<>+BLOCKS(N)(SB), Z9, A

#define XORBODYZ(OFF, A) \
	VPXORQ      OFF(DI), Z26, Z5 \
	VAESENCLAST Z5, A, A         \
	VMOVDQU64   A, OFF(DI)

// streamVAES512 adds the keystream from counter block X13 on to CX bytes at DI.
TEXT streamVAES512<>(SB), NOSPLIT, $0-0
	VSHUFI64X2      $0, Z13, Z13, Z13
	VBROADCASTI32X4 keys_k+BLOCKS(0)(R8), Z16
	VBROADCASTI32X4 keys_k+BLOCKS(1)(R8), Z17
	VBROADCASTI32X4 keys_k+BLOCKS(2)(R8), Z18
	VBROADCASTI32X4 keys_k+BLOCKS(3)(R8), Z19
	VBROADCASTI32X4 keys_k+BLOCKS(4)(R8), Z20
	VBROADCASTI32X4 keys_k+BLOCKS(5)(R8), Z21
	VBROADCASTI32X4 keys_k+BLOCKS(6)(R8), Z22
	VBROADCASTI32X4 keys_k+BLOCKS(7)(R8), Z23
	VBROADCASTI32X4 keys_k+BLOCKS(8)(R8), Z24
	VBROADCASTI32X4 keys_k+BLOCKS(9)(R8), Z25
	VBROADCASTI32X4 keys_k+BLOCKS(10)(R8), Z26
	VBROADCASTI32X4 count<>+BLOCKS(16)(SB), Z12

sixteen:
	VPXORQ    Z16, Z13, Z9
	VPADDB    Z12, Z13, Z13
	WHITENZ(0, Z0)
	WHITENZ(4, Z1)
	CMPQ      CX, $BLOCKS(8)
	JLE       eight
	WHITENZ(8, Z2)
	WHITENZ(12, Z3)
	ROUNDZ4(Z17, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z18, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z19, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z20, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z21, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z22, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z23, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z24, Z0, Z1, Z2, Z3)
	ROUNDZ4(Z25, Z0, Z1, Z2, Z3)
	CMPQ      CX, $BLOCKS(16)
	JLT       rest
	XORBODYZ(BLOCKS(0), Z0)
	XORBODYZ(BLOCKS(4), Z1)
	XORBODYZ(BLOCKS(8), Z2)
	XORBODYZ(BLOCKS(12), Z3)
	ADDQ      $BLOCKS(16), DI
	SUBQ      $BLOCKS(16), CX
	JNE       sixteen
	RET

eight:
	ROUNDZ2(Z17, Z0, Z1)
	ROUNDZ2(Z18, Z0, Z1)
	ROUNDZ2(Z19, Z0, Z1)
	ROUNDZ2(Z20, Z0, Z1)
	ROUNDZ2(Z21, Z0, Z1)
	ROUNDZ2(Z22, Z0, Z1)
	ROUNDZ2(Z23, Z0, Z1)
	ROUNDZ2(Z24, Z0, Z1)
	ROUNDZ2(Z25, Z0, Z1)

rest:
	// 1 to 255 bytes, with their keystream, but for the last round, in Z0 to Z3.
	CMPQ      CX, $BLOCKS(4)
	JLE       last
	XORBODYZ(0, Z0)
	ADDQ      $BLOCKS(4), DI
	SUBQ      $BLOCKS(4), CX
	VMOVDQA64 Z1, Z0
	VMOVDQA64 Z2, Z1
	VMOVDQA64 Z3, Z2
	JMP       rest

last:
	MASK(CX)
	VMOVDQU8.Z  (DI), K1, Z5
	VPXORQ      Z26, Z5, Z5
	VAESENCLAST Z5, Z0, Z0
	VMOVDQU8    Z0, K1, (DI)
	RET

// ROUND is a round of sixteen blocks of keystream.
#define ROUND(I) \
	VBROADCASTI32X4 keys_k+BLOCKS(I)(R8), Z28 \
	ROUNDZ4(Z28, Z24, Z25, Z26, Z27)

// XORROW is XORBODYZ with a round key that was loaded last.
#define XORROW(OFF, A) \
	VPXORQ      OFF(DI), Z28, Z9 \
	VAESENCLAST Z9, A, A         \
	VMOVDQU64   A, OFF(DI)

// bothVAES512 goes on with the hash as hashVAES512 does, and with the keystream as
// streamVAES512 does with SI bytes for CX, of which it leaves what the last groups
// do not fill: fewer than 320. CX > SI.
TEXT bothVAES512<>(SB), NOSPLIT, $0-0
	CMPQ            CX, $BLOCKS(16)
	JLE             hash
	VBROADCASTI32X4 field<>(SB), Z31
	FOUR(apart)
	CMPQ            CX, $BLOCKS(16)
	JLE             hash

apart:
	KEEPPOWERS
	VSHUFI64X2      $0, Z13, Z13, Z13
	VBROADCASTI32X4 count<>+BLOCKS(16)(SB), Z12

group:
	VBROADCASTI32X4 keys_k(R8), Z28
	VPXORQ    Z28, Z13, Z9
	VPADDB    Z12, Z13, Z13
	WHITENZ(0, Z24)
	WHITENZ(4, Z25)
	WHITENZ(8, Z26)
	WHITENZ(12, Z27)
	ZERO(Z1)
	ZERO(Z2)
	ZERO(Z3)
	ROUND(1)
	VMOVDQU64 BLOCKS(4)(DX), Z0
	MULZ(Z17, Z21)
	ROUND(2)
	ROUND(3)
	VMOVDQU64 BLOCKS(8)(DX), Z0
	MULZ(Z18, Z22)
	ROUND(4)
	VMOVDQU64 BLOCKS(12)(DX), Z0
	MULZ(Z19, Z23)
	ROUND(5)
	ROUND(6)
	VPXORQ    (DX), Z7, Z0
	MULZ(Z16, Z20)
	ROUND(7)
	REDUCEZ
	ROUND(8)
	ROUND(9)
	VBROADCASTI32X4 keys_k+BLOCKS(10)(R8), Z28
	XORROW(BLOCKS(0), Z24)
	XORROW(BLOCKS(4), Z25)
	XORROW(BLOCKS(8), Z26)
	XORROW(BLOCKS(12), Z27)
	ADDQ      $BLOCKS(16), DI
	SUBQ      $BLOCKS(16), SI
	ADDQ      $BLOCKS(16), DX
	SUBQ      $BLOCKS(16), CX
	CMPQ      CX, $BLOCKS(16)
	JGT       group

hash:
	JMP hashVAES512<>(SB)

// WIDEN makes the four powers at HIGH of those at LOW, which it loads one by one:
// they were stored so, just now.
#define WIDEN(LOW, HIGH) \
	VMOVDQU      LOW+BLOCKS(0)(R8), X0         \
	VMOVDQU      LOW+BLOCKS(2)(R8), X4         \
	VINSERTI128  $1, LOW+BLOCKS(1)(R8), Y0, Y0 \
	VINSERTI128  $1, LOW+BLOCKS(3)(R8), Y4, Y4 \
	VINSERTI64X4 $1, Y4, Z0, Z0                \
	ZERO(Z1)                                   \
	ZERO(Z2)                                   \
	ZERO(Z3)                                   \
	MULZ(Z18, Z22)                             \
	REDUCEZ                                    \
	VMOVDQU64    Z7, HIGH(R8)

// func widenVAES512(s *keys)
//
// KU^16 … KU^9 are KU^8 … KU^1 times KU^8.
TEXT ·widenVAES512(SB), NOSPLIT, $0-8
	MOVQ            s+0(FP), R8
	VBROADCASTI32X4 field<>(SB), Z31
	KEEP(keys_ku(R8), Z18, Z22)
	WIDEN(keys_ku, keys_high)
	WIDEN(keys_ku+BLOCKS(4), keys_high+BLOCKS(4))
	VZEROUPPER
	RET
