//go:build !purego

// The kernel for VAES, VPCLMULQDQ and AVX2, two blocks to a register.
// kernel_amd64.h explains the whole.

#include "textflag.h"
#include "go_asm.h"
#include "kernel_amd64.h"

// func encipherVAES(s *keys, prev, nonce *[tagSize]byte, body *byte, n, stride, count int, ad byte) (done int)
TEXT ·encipherVAES(SB), NOSPLIT, $0-72
	ENCIPHER(hashVAES, streamVAES, bothVAES)
	VZEROUPPER
	RET

// func decipherVAES(s *keys, prev, _ *[tagSize]byte, body *byte, n int, ad byte)
TEXT ·decipherVAES(SB), NOSPLIT, $0-41
	DECIPHER(hashVAES, streamVAES)
	VZEROUPPER
	RET

// SUM is how far before a power the sum of its halves is.
#define SUM (keys_high-keys_ku)

// MULPAIR is MUL of a pair of blocks by one power, whose halves' sum is in SUMS.
#define MULPAIR(POWER, SUMS, D, LO, HI, MID, H, T) \
	VBROADCASTI128 POWER, H            \
	MUL(H, SUMS, D, LO, HI, MID, T)

#define MULGROUP(N, SUMS) MULPAIR(keys_ku+BLOCKS(N)(R8), SUMS, Y0, Y1, Y2, Y3, Y4, Y5)

// MULNEXT is MUL of the pair Y0 by a power each.
#define MULNEXT \
	VMOVDQU (R10), Y4 \
	MUL(Y4, SUM(R10), Y0, Y1, Y2, Y3, Y5)

#define ZERO(A) VPXOR A, A, A

// LASTBLOCK loads the block that has the last CX bytes, 1 to 16, of those to hash.
#define LASTBLOCK(X) \
	VMOVDQU -16(DX)(CX*1), X    \
	LEAQ    window<>+32(SB), AX \
	SUBQ    CX, AX              \
	VPSHUFB (AX), X, X

// EVEN hashes one block, if there would be fewer than two for the end, and goes to
// PAIRED if not.
#define EVEN(PAIRED) \
	LEAQ  -1(CX), AX \
	ANDQ  $127, AX   \
	CMPQ  AX, $16    \
	JGE   PAIRED     \
	VPXOR (DX), X7, X7 \
	PRODUCT(X7, keys_ku+BLOCKS(7)(R8), X7) \
	ADDQ  $16, DX    \
	SUBQ  $16, CX

// hashVAES: X7 = the hash that continues on X7 with CX bytes at DX, CX > 16.
//
// The lanes go separate ways until the end: the lower has every other block from
// the first on, the upper the others, and both use the even powers, so that the
// sum of the upper lane is too high by one power. The last blocks take the powers
// that are theirs, which mends it. For this there must be two of them or more.
TEXT hashVAES<>(SB), NOSPLIT, $0-0
	EVEN(paired)

paired:
	CMPQ           CX, $BLOCKS(8)
	JLE            tail
	VINSERTI128    $1, X15, Y15, Y15
	VBROADCASTI128 keys_high+BLOCKS(0)(R8), Y8
	VBROADCASTI128 keys_high+BLOCKS(2)(R8), Y9
	VBROADCASTI128 keys_high+BLOCKS(4)(R8), Y10
	VBROADCASTI128 keys_high+BLOCKS(6)(R8), Y11

group:
	ZERO(Y1)
	ZERO(Y2)
	ZERO(Y3)
	VMOVDQU BLOCKS(2)(DX), Y0
	MULGROUP(2, Y9)
	VMOVDQU BLOCKS(4)(DX), Y0
	MULGROUP(4, Y10)
	VMOVDQU BLOCKS(6)(DX), Y0
	MULGROUP(6, Y11)
	VPXOR   (DX), Y7, Y0
	MULGROUP(0, Y8)
	REDUCE(Y15, Y1, Y2, Y3, Y5, Y7)
	ADDQ    $BLOCKS(8), DX
	SUBQ    $BLOCKS(8), CX
	CMPQ    CX, $BLOCKS(8)
	JGT     group

tail:
	// 17 to 128 bytes: as many powers from the end as there are blocks.
	LEAQ 15(CX), AX
	ANDQ $-16, AX
	LEAQ keys_ku+BLOCKS(8)(R8), R10
	SUBQ AX, R10
	ZERO(Y1)
	ZERO(Y2)
	ZERO(Y3)

pair:
	CMPQ  CX, $32
	JLE   last
	VPXOR (DX), Y7, Y0
	ZERO(Y7)
	MULNEXT
	ADDQ  $32, DX
	ADDQ  $32, R10
	SUBQ  $32, CX
	JMP   pair

last:
	CMPQ        CX, $16
	JLE         single
	VMOVDQU     (DX), X6
	SUBQ        $16, CX
	ADDQ        $16, DX
	LASTBLOCK(X0)
	VINSERTI128 $1, X0, Y6, Y0
	VPXOR       Y7, Y0, Y0
	MULNEXT
	JMP         fold

single:
	// What is loaded here beyond the last power meets zeros.
	LASTBLOCK(X0)
	MULNEXT

fold:
	VEXTRACTI128 $1, Y1, X4
	VEXTRACTI128 $1, Y2, X5
	VEXTRACTI128 $1, Y3, X6
	VPXOR        X4, X1, X1
	VPXOR        X5, X2, X2
	VPXOR        X6, X3, X3
	REDUCE(X15, X1, X2, X3, X5, X7)
	RET

// streamVAES adds the keystream from counter block X13 on to CX bytes at DI,
// which follow on 16 bytes of the same body.
TEXT streamVAES<>(SB), NOSPLIT, $0-0
	VBROADCASTI128 count<>+BLOCKS(16)(SB), Y12
	VINSERTI128    $1, X13, Y13, Y13

sixteen:
	VBROADCASTI128 keys_k(R8), Y9
	VPXOR   Y13, Y9, Y9
	VPADDB  Y12, Y13, Y13
	WHITEN(0, Y9, Y0)
	WHITEN(2, Y9, Y1)
	WHITEN(4, Y9, Y2)
	WHITEN(6, Y9, Y3)
	CMPQ    CX, $BLOCKS(8)
	JLE     eight
	WHITEN(8, Y9, Y4)
	WHITEN(10, Y9, Y5)
	WHITEN(12, Y9, Y6)
	WHITEN(14, Y9, Y7)
	KEYSTREAM8(VBROADCASTI128, Y8, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7)
	XORBODY(BLOCKS(0), Y0)
	XORBODY(BLOCKS(2), Y1)
	XORBODY(BLOCKS(4), Y2)
	XORBODY(BLOCKS(6), Y3)
	CMPQ    CX, $BLOCKS(16)
	JLT     half
	XORBODY(BLOCKS(8), Y4)
	XORBODY(BLOCKS(10), Y5)
	XORBODY(BLOCKS(12), Y6)
	XORBODY(BLOCKS(14), Y7)
	ADDQ    $BLOCKS(16), DI
	SUBQ    $BLOCKS(16), CX
	JNE     sixteen
	RET

half:
	ADDQ    $BLOCKS(8), DI
	SUBQ    $BLOCKS(8), CX
	VMOVDQU Y4, Y0
	VMOVDQU Y5, Y1
	VMOVDQU Y6, Y2
	VMOVDQU Y7, Y3
	JMP     rest

eight:
	KEYSTREAM4(VBROADCASTI128, Y8, Y0, Y1, Y2, Y3)

rest:
	// 1 to 128 bytes, with their keystream in Y0 to Y3.
	CMPQ    CX, $32
	JLT     last
	XORBODY(0, Y0)
	ADDQ    $32, DI
	SUBQ    $32, CX
	VMOVDQU Y1, Y0
	VMOVDQU Y2, Y1
	VMOVDQU Y3, Y2
	JMP     rest

last:
	CMPQ    CX, $16
	JLT     part
	VPXOR   (DI), X0, X1
	VMOVDQU X1, (DI)
	ADDQ    $16, DI
	SUBQ    $16, CX
	VEXTRACTI128 $1, Y0, X0

part:
	TESTQ   CX, CX
	JEQ     done
	LEAQ    window<>(SB), AX
	VPSHUFB (AX)(CX*1), X0, X0
	VPXOR   -16(DI)(CX*1), X0, X0
	VMOVDQU X0, -16(DI)(CX*1)

done:
	RET

// ROUND is a round of sixteen blocks of keystream, ROUNDMUL one beside the product
// of the pair that is N blocks on and their power.
#define ROUND(OP, I) ROUND8(OP, VBROADCASTI128, I, Y14, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7)

#define MULBESIDE(N) \
	VBROADCASTI128 keys_ku+BLOCKS(N)(R8), Y12    \
	VPCLMULQDQ     $0x00, Y12, Y8, Y14           \
	VPXOR          Y14, Y9, Y9                   \
	VPCLMULQDQ     $0x11, Y12, Y8, Y14           \
	VPXOR          Y14, Y10, Y10                 \
	VBROADCASTI128 keys_high+BLOCKS(N)(R8), Y12  \
	VPSHUFD        $0x4e, Y8, Y14                \
	VPXOR          Y14, Y8, Y8                   \
	VPCLMULQDQ     $0x00, Y12, Y8, Y14           \
	VPXOR          Y14, Y11, Y11

#define ROUNDMUL(I, N, POWER) \
	ROUND(VAESENC, I)         \
	VMOVDQU BLOCKS(N)(DX), Y8 \
	MULBESIDE(POWER)

// ROUNDMULFIRST is ROUNDMUL of the pair that takes r.
#define ROUNDMULFIRST(I, N) \
	ROUND(VAESENC, I)            \
	VPXOR BLOCKS(N)(DX), Y15, Y8 \
	MULBESIDE(0)

// bothVAES goes on with the hash as hashVAES does, and with the keystream as
// streamVAES does with SI bytes for CX, of which it leaves what the last groups do
// not fill: fewer than 272. CX > SI.
TEXT bothVAES<>(SB), NOSPLIT, $0-0
	EVEN(paired)

paired:
	CMPQ        CX, $BLOCKS(16)
	JLE         hash
	VMOVDQU     Y7, Y15
	VINSERTI128 $1, X13, Y13, Y13

group:
	VBROADCASTI128 keys_k(R8), Y8
	VPXOR   Y13, Y8, Y8
	VPADDB  count<>+BLOCKS(16)(SB), Y13, Y13
	WHITEN(0, Y8, Y0)
	WHITEN(2, Y8, Y1)
	WHITEN(4, Y8, Y2)
	WHITEN(6, Y8, Y3)
	WHITEN(8, Y8, Y4)
	WHITEN(10, Y8, Y5)
	WHITEN(12, Y8, Y6)
	WHITEN(14, Y8, Y7)
	ZERO(Y9)
	ZERO(Y10)
	ZERO(Y11)
	ROUNDMUL(1, 2, 2)
	ROUNDMUL(2, 4, 4)
	ROUNDMUL(3, 6, 6)
	ROUNDMULFIRST(4, 0)
	REDUCE(field<>(SB), Y9, Y10, Y11, Y12, Y15)
	ZERO(Y9)
	ZERO(Y10)
	ZERO(Y11)
	ROUNDMUL(5, 10, 2)
	ROUNDMUL(6, 12, 4)
	ROUNDMUL(7, 14, 6)
	ROUNDMULFIRST(8, 8)
	ROUND(VAESENC, 9)
	REDUCE(field<>(SB), Y9, Y10, Y11, Y12, Y15)
	ROUND(VAESENCLAST, 10)
	XORBODY(BLOCKS(0), Y0)
	XORBODY(BLOCKS(2), Y1)
	XORBODY(BLOCKS(4), Y2)
	XORBODY(BLOCKS(6), Y3)
	XORBODY(BLOCKS(8), Y4)
	XORBODY(BLOCKS(10), Y5)
	XORBODY(BLOCKS(12), Y6)
	XORBODY(BLOCKS(14), Y7)
	ADDQ    $BLOCKS(16), DI
	SUBQ    $BLOCKS(16), SI
	ADDQ    $BLOCKS(16), DX
	SUBQ    $BLOCKS(16), CX
	CMPQ    CX, $BLOCKS(16)
	JGT     group
	VMOVDQU Y15, Y7
	VMOVDQU field<>(SB), X15

hash:
	JMP hashVAES<>(SB)
