//go:build !purego

// The kernel for arm64 with the instructions for AES and PMULL. The algebra, the
// hash, the tweak, the counter and the handling of last bytes are those that
// kernel_amd64.h explains. What is different here:
//
// AES. AESE adds the round key before SubBytes and ShiftRows; AESMC is
// MixColumns. So a block takes nine pairs of them, a tenth AESE alone, and the
// last round key by VEOR. A pair stands together, for many machines run it as
// one instruction. AESD and AESIMC take the schedule of the inverse alike.
//
// Product. VPMULL multiplies the lower halves of two registers, VPMULL2 the
// upper ones. The sums of the halves that Karatsuba takes of two powers share a
// register: that of the first is its lower half, that of the second its upper.
//
// Sliding window. VTBL makes a zero of an index beyond 15, so that the window of
// kernel_amd64.h serves here too.
//
// Registers:
//
//	R0  keys (the struct; offsets from go_asm.h)     R1  T'
//	R2  body                                         R3  n
//	R4  next byte to hash or to add keystream to     R5  bytes left of either
//	R6  next power                                   R7  scratch
//	      while hashing                    while adding keystream
//	0-7   blocks                           0-7  keystream
//	8-10  LO, HI and MID of the sum        8-11 body
//	11-12 T and U, scratch of products
//	16-23 powers, KU^8 … KU^1              16-26 round keys
//	24-27 sums of halves of two powers     27   ONE, what the counter gains
//	28    FIELD, q in the lower half       29   XL, the left half, all the time
//	30    HASH: r, then the tweak m        31   COUNTER, the next counter block

#include "textflag.h"
#include "go_asm.h"

#define LO      V8
#define HI      V9
#define MID     V10
#define T       V11
#define U       V12
#define ONE     V27
#define FIELD   V28
#define XL      V29
#define HASH    V30
#define COUNTER V31

#define ADDTO(A, SUM) VEOR A.B16, SUM.B16, SUM.B16
#define ZERO(A) VEOR A.B16, A.B16, A.B16
#define COPY(A, OUT) VMOV A.B16, OUT.B16
#define SWAP(A, OUT) VEXT $8, A.B16, A.B16, OUT.B16

// HALVES gives OUT, the sum of the halves of A, in both halves.
#define HALVES(A, OUT) \
	SWAP(A, OUT)  \
	ADDTO(A, OUT)

// TWOHALVES gives OUT, the sum of the halves of A, then that of the halves of B.
#define TWOHALVES(A, B, OUT) \
	VTRN1 B.D2, A.D2, OUT.D2 \
	VTRN2 B.D2, A.D2, T.D2   \
	ADDTO(T, OUT)

#define ZEROSUM \
	ZERO(LO)  \
	ZERO(HI)  \
	ZERO(MID)

// MUL adds the product A·POWER to LO, HI, MID. The sum of the power's halves is
// in SUMS, where OP and H are VPMULL and D1 for its lower half, VPMULL2 and D2
// for its upper. MUL changes A.
#define MUL(A, POWER, OP, SUMS, H) \
	HALVES(A, T)                    \
	VPMULL  A.D1, POWER.D1, U.Q1    \
	VPMULL2 A.D2, POWER.D2, A.Q1    \
	OP      T.H, SUMS.H, T.Q1       \
	ADDTO(U, LO)                    \
	ADDTO(A, HI)                    \
	ADDTO(T, MID)

// REDUCE gives OUT, the element that LO, HI and MID are. It changes all of them.
#define REDUCE(OUT) \
	ADDTO(LO, MID)                   \
	ADDTO(HI, MID)                   \
	VPMULL FIELD.D1, LO.D1, T.Q1     \
	SWAP(LO, LO)                     \
	ADDTO(LO, MID)                   \
	ADDTO(T, MID)                    \
	VPMULL FIELD.D1, MID.D1, T.Q1    \
	SWAP(MID, MID)                   \
	ADDTO(MID, HI)                   \
	VEOR   T.B16, HI.B16, OUT.B16

// PRODUCT gives OUT = A·B.
#define PRODUCT(A, B, OUT) \
	HALVES(A, T)                 \
	HALVES(B, U)                 \
	VPMULL  A.D1, B.D1, LO.Q1    \
	VPMULL2 A.D2, B.D2, HI.Q1    \
	VPMULL  T.D1, U.D1, MID.Q1   \
	REDUCE(OUT)

// MAKEFIELD sets FIELD.
#define MAKEFIELD \
	MOVD $0xc200000000000000, R7 \
	ZERO(FIELD)                  \
	VMOV R7, FIELD.D[0]

// FIRSTCOUNTER sets COUNTER, the first counter block that the tag in TAG selects.
// B and the mask are neighbours. It changes V1 and V2.
#define FIRSTCOUNTER(TAG) \
	ADD  $keys_b, R0, R7                           \
	VLD1 (R7), [V1.B16, V2.B16]                    \
	PRODUCT(TAG, V1, COUNTER)                      \
	VAND V2.B16, COUNTER.B16, COUNTER.B16

// ROUNDKEYS loads the schedule at KEYS.
#define ROUNDKEYS(KEYS) \
	ADD    $KEYS, R0, R7                                     \
	VLD1.P 64(R7), [V16.B16, V17.B16, V18.B16, V19.B16]      \
	VLD1.P 64(R7), [V20.B16, V21.B16, V22.B16, V23.B16]      \
	VLD1   (R7), [V24.B16, V25.B16, V26.B16]

// ROUND does one round of one block, with AESE and AESMC or AESD and AESIMC;
// ROUND8 one round of V0 to V7.
#define ROUND(OP, MIX, KEY, A) \
	OP  KEY.B16, A.B16 \
	MIX A.B16, A.B16

#define ROUND8(KEY) \
	ROUND(AESE, AESMC, KEY, V0) \
	ROUND(AESE, AESMC, KEY, V1) \
	ROUND(AESE, AESMC, KEY, V2) \
	ROUND(AESE, AESMC, KEY, V3) \
	ROUND(AESE, AESMC, KEY, V4) \
	ROUND(AESE, AESMC, KEY, V5) \
	ROUND(AESE, AESMC, KEY, V6) \
	ROUND(AESE, AESMC, KEY, V7)

// LASTROUND is the tenth round.
#define LASTROUND(OP, A) \
	OP V25.B16, A.B16 \
	ADDTO(V26, A)

// KEYSTREAM8 makes keystream of the counter blocks in V0 to V7.
#define KEYSTREAM8 \
	ROUND8(V16)         \
	ROUND8(V17)         \
	ROUND8(V18)         \
	ROUND8(V19)         \
	ROUND8(V20)         \
	ROUND8(V21)         \
	ROUND8(V22)         \
	ROUND8(V23)         \
	ROUND8(V24)         \
	LASTROUND(AESE, V0) \
	LASTROUND(AESE, V1) \
	LASTROUND(AESE, V2) \
	LASTROUND(AESE, V3) \
	LASTROUND(AESE, V4) \
	LASTROUND(AESE, V5) \
	LASTROUND(AESE, V6) \
	LASTROUND(AESE, V7)

// NEXT gives A, the next counter block.
#define NEXT(A) \
	COPY(COUNTER, A)                        \
	VADD ONE.B16, COUNTER.B16, COUNTER.B16

// XORBODY4, XORBODY2 and XORBODY1 add so many blocks of keystream to the body at
// R4 and move it on.
#define XORBODY4(A, B, C, D) \
	VLD1   (R4), [V8.B16, V9.B16, V10.B16, V11.B16]  \
	ADDTO(A, V8)                                     \
	ADDTO(B, V9)                                     \
	ADDTO(C, V10)                                    \
	ADDTO(D, V11)                                    \
	VST1.P [V8.B16, V9.B16, V10.B16, V11.B16], 64(R4)

#define XORBODY2(A, B) \
	VLD1   (R4), [V8.B16, V9.B16]    \
	ADDTO(A, V8)                     \
	ADDTO(B, V9)                     \
	VST1.P [V8.B16, V9.B16], 32(R4)

#define XORBODY1(A) \
	VLD1   (R4), [V8.B16]    \
	ADDTO(A, V8)             \
	VST1.P [V8.B16], 16(R4)

// ARGUMENTS loads those of encipherARM64 and decipherARM64:
// (s *keys, prev *[tagSize]byte, ad byte, body *byte, n int).
#define ARGUMENTS \
	MOVD s+0(FP), R0     \
	MOVD prev+8(FP), R1  \
	MOVD body+24(FP), R2 \
	MOVD n+32(FP), R3    \
	VLD1 (R2), [XL.B16]  \
	MAKEFIELD

// TWEAK gives HASH, the hash of T' | AD | X_R.
#define TWEAK \
	MOVBU ad+16(FP), R7  \
	MOVB  R7, 15(R2)     \
	ADD   $15, R2, R4    \
	SUB   $15, R3, R5    \
	CALL  hash<>(SB)

// LEFT puts the left half XL, through AES under KB between two additions of the
// tweak, into V0.
#define LEFT(OP, MIX) \
	ROUNDKEYS(keys_kb)                \
	VEOR HASH.B16, XL.B16, V0.B16     \
	ROUND(OP, MIX, V16, V0)           \
	ROUND(OP, MIX, V17, V0)           \
	ROUND(OP, MIX, V18, V0)           \
	ROUND(OP, MIX, V19, V0)           \
	ROUND(OP, MIX, V20, V0)           \
	ROUND(OP, MIX, V21, V0)           \
	ROUND(OP, MIX, V22, V0)           \
	ROUND(OP, MIX, V23, V0)           \
	ROUND(OP, MIX, V24, V0)           \
	LASTROUND(OP, V0)                 \
	ADDTO(HASH, V0)

// RIGHT adds the keystream from COUNTER on to the right half.
#define RIGHT \
	ADD  $16, R2, R4    \
	SUB  $16, R3, R5    \
	CALL stream<>(SB)

// func encipherARM64(s *keys, prev *[tagSize]byte, ad byte, body *byte, n int)
TEXT ·encipherARM64(SB), NOSPLIT, $0-40
	ARGUMENTS
	TWEAK
	LEFT(AESE, AESMC)
	VST1 [V0.B16], (R2)
	VST1 [V0.B16], (R1)
	FIRSTCOUNTER(V0)
	RIGHT
	RET

// func decipherARM64(s *keys, prev *[tagSize]byte, ad byte, body *byte, n int)
TEXT ·decipherARM64(SB), NOSPLIT, $0-40
	ARGUMENTS
	FIRSTCOUNTER(XL)
	RIGHT
	TWEAK
	LEFT(AESD, AESIMC)
	VST1 [V0.B16], (R2)
	VST1 [XL.B16], (R1)
	RET

// hash: HASH = POLYVAL_KU(T' | R5 bytes at R4), where R5 > 0.
TEXT hash<>(SB), NOSPLIT, $0-0
	ADD    $keys_ku, R0, R6
	VLD1.P 64(R6), [V16.B16, V17.B16, V18.B16, V19.B16]
	VLD1.P 64(R6), [V20.B16, V21.B16, V22.B16, V23.B16]
	VLD1   (R1), [V0.B16]
	PRODUCT(V0, V23, HASH)
	CMP    $128, R5
	BLE    tail
	TWOHALVES(V16, V17, V24)
	TWOHALVES(V18, V19, V25)
	TWOHALVES(V20, V21, V26)
	TWOHALVES(V22, V23, V27)

group:
	VLD1.P 64(R4), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R4), [V4.B16, V5.B16, V6.B16, V7.B16]
	ZEROSUM
	MUL(V1, V17, VPMULL2, V24, D2)
	MUL(V2, V18, VPMULL, V25, D1)
	MUL(V3, V19, VPMULL2, V25, D2)
	MUL(V4, V20, VPMULL, V26, D1)
	MUL(V5, V21, VPMULL2, V26, D2)
	MUL(V6, V22, VPMULL, V27, D1)
	MUL(V7, V23, VPMULL2, V27, D2)
	ADDTO(HASH, V0)
	MUL(V0, V16, VPMULL, V24, D1)
	REDUCE(HASH)
	SUB    $128, R5
	CMP    $128, R5
	BGT    group

tail:
	// 1 to 128 bytes: as many powers from the end as there are blocks.
	ADD $15, R5, R7
	AND $~15, R7
	SUB R7, R6
	ZEROSUM

block:
	CMP    $16, R5
	BLE    last
	VLD1.P 16(R4), [V0.B16]
	VLD1.P 16(R6), [V1.B16]
	HALVES(V1, V2)
	ADDTO(HASH, V0)
	ZERO(HASH)
	MUL(V0, V1, VPMULL, V2, D1)
	SUB    $16, R5
	B      block

last:
	ADD  R5, R4
	SUB  $16, R4
	VLD1 (R4), [V0.B16]
	MOVD $window<>+32(SB), R7
	SUB  R5, R7
	VLD1 (R7), [V3.B16]
	VTBL V3.B16, [V0.B16], V0.B16
	VLD1 (R6), [V1.B16]
	HALVES(V1, V2)
	ADDTO(HASH, V0)
	MUL(V0, V1, VPMULL, V2, D1)
	REDUCE(HASH)
	RET

// stream adds the keystream from COUNTER on to R5 > 0 bytes at R4, which follow
// on 16 bytes of the same body.
TEXT stream<>(SB), NOSPLIT, $0-0
	ROUNDKEYS(keys_k)
	MOVD $0x0100000000000000, R7
	ZERO(ONE)
	VMOV R7, ONE.D[1]

eight:
	NEXT(V0)
	NEXT(V1)
	NEXT(V2)
	NEXT(V3)
	NEXT(V4)
	NEXT(V5)
	NEXT(V6)
	NEXT(V7)
	KEYSTREAM8
	CMP  $128, R5
	BLT  rest
	XORBODY4(V0, V1, V2, V3)
	XORBODY4(V4, V5, V6, V7)
	SUBS $128, R5
	BNE  eight
	RET

rest:
	// 1 to 127 bytes: bit 6 of their number stands for four blocks, and so on.
	TBZ $6, R5, two
	XORBODY4(V0, V1, V2, V3)
	COPY(V4, V0)
	COPY(V5, V1)
	COPY(V6, V2)
	COPY(V7, V3)

two:
	TBZ $5, R5, one
	XORBODY2(V0, V1)
	COPY(V2, V0)
	COPY(V3, V1)

one:
	TBZ $4, R5, part
	XORBODY1(V0)
	COPY(V1, V0)

part:
	ANDS $15, R5
	BEQ  done
	MOVD $window<>(SB), R7
	ADD  R5, R7
	VLD1 (R7), [V1.B16]
	VTBL V1.B16, [V0.B16], V0.B16
	ADD  R5, R4
	SUB  $16, R4
	XORBODY1(V0)

done:
	RET

// ROUNDKEY makes the next round key of the one before in X, and stores it at
// KEYS. Of four equal columns AESE with a key of zeros is SubBytes alone.
#define ROUNDKEY(KEYS, X) \
	VTBL   V4.B16, [X.B16], V2.B16   \
	AESE   V5.B16, V2.B16            \
	VEXT   $12, X.B16, V5.B16, V3.B16 \
	ADDTO(V3, X)                     \
	VEXT   $12, V3.B16, V5.B16, V3.B16 \
	ADDTO(V3, X)                     \
	VEXT   $12, V3.B16, V5.B16, V3.B16 \
	ADDTO(V3, X)                     \
	ADDTO(V6, X)                     \
	ADDTO(V2, X)                     \
	VST1.P [X.B16], 16(KEYS)

// NEXTKEYS does it for KB and K side by side.
#define NEXTKEYS(RCON) \
	MOVD $RCON, R7   \
	VDUP R7, V6.S4   \
	ROUNDKEY(R4, V0) \
	ROUNDKEY(R5, V1)

// func expandARM64(s *keys, k *[64]byte, inverse bool)
TEXT ·expandARM64(SB), NOSPLIT, $0-17
	MOVD   s+0(FP), R0
	MOVD   k+8(FP), R1
	MAKEFIELD

	// The block is KB, KU, K, B.
	VLD1   (R1), [V16.B16, V17.B16, V18.B16, V19.B16]
	ADD    $keys_b, R0, R7
	VST1   [V19.B16], (R7)
	COPY(V16, V0)
	COPY(V18, V1)
	ADD    $keys_kb, R0, R4
	ADD    $keys_k, R0, R5
	VST1.P [V0.B16], 16(R4)
	VST1.P [V1.B16], 16(R5)
	MOVD   $0x0c0f0e0d, R7   // the last column, rotated, four times
	VDUP   R7, V4.S4
	ZERO(V5)
	NEXTKEYS(0x01)
	NEXTKEYS(0x02)
	NEXTKEYS(0x04)
	NEXTKEYS(0x08)
	NEXTKEYS(0x10)
	NEXTKEYS(0x20)
	NEXTKEYS(0x40)
	NEXTKEYS(0x80)
	NEXTKEYS(0x1b)
	NEXTKEYS(0x36)

	ADD    $keys_ku, R0, R7
	COPY(V17, V7)
	PRODUCT(V7, V7, V6)
	PRODUCT(V6, V7, V5)
	PRODUCT(V6, V6, V4)
	PRODUCT(V4, V7, V3)
	PRODUCT(V4, V6, V2)
	PRODUCT(V4, V5, V1)
	PRODUCT(V4, V4, V0)
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R7)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R7)

	// For the inverse KB's schedule is turned round, and all but its ends go
	// through AESIMC.
	MOVBU  inverse+16(FP), R8
	CBZ    R8, done
	ROUNDKEYS(keys_kb)
	COPY(V26, V0)
	AESIMC V25.B16, V1.B16
	AESIMC V24.B16, V2.B16
	AESIMC V23.B16, V3.B16
	AESIMC V22.B16, V4.B16
	AESIMC V21.B16, V5.B16
	AESIMC V20.B16, V6.B16
	AESIMC V19.B16, V7.B16
	AESIMC V18.B16, V8.B16
	AESIMC V17.B16, V9.B16
	COPY(V16, V10)
	ADD    $keys_kb, R0, R7
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R7)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R7)
	VST1   [V8.B16, V9.B16, V10.B16], (R7)

done:
	RET

// NUMBERED makes A the counter block whose low half is R4, and counts on.
#define NUMBERED(A) \
	COPY(COUNTER, A) \
	REV  R4, R7      \
	VMOV R7, A.D[1]  \
	ADD  $1, R4

// func stretchARM64(s *keys, y *[tagSize]byte, first uint64, out *[KeySize]byte)
TEXT ·stretchARM64(SB), NOSPLIT, $0-32
	MOVD s+0(FP), R0
	MOVD y+8(FP), R1
	MOVD first+16(FP), R3
	MOVD out+24(FP), R2
	MAKEFIELD
	VLD1 (R1), [V0.B16]
	FIRSTCOUNTER(V0)
	VMOV COUNTER.D[1], R4
	REV  R4, R4
	ADD  R3, R4
	NUMBERED(V0)
	NUMBERED(V1)
	NUMBERED(V2)
	NUMBERED(V3)
	NUMBERED(V4)
	ROUNDKEYS(keys_k)
	KEYSTREAM8
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R2)
	VST1   [V4.B16], (R2)
	RET

// The sliding window of VTBL indexes: the 16 bytes at window + r move the first
// r bytes of a register to its end, those at window + 32 - r the last r to its
// beginning.
DATA window<>+0(SB)/8, $0x8080808080808080
DATA window<>+8(SB)/8, $0x8080808080808080
DATA window<>+16(SB)/8, $0x0706050403020100
DATA window<>+24(SB)/8, $0x0f0e0d0c0b0a0908
DATA window<>+32(SB)/8, $0x8080808080808080
DATA window<>+40(SB)/8, $0x8080808080808080
GLOBL window<>(SB), RODATA|NOPTR, $48
