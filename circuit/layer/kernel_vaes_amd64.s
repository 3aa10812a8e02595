//go:build !purego

// The kernel for VAES, VPCLMULQDQ and AVX2, two blocks to a register.
// kernel_amd64.h explains the whole.

#include "textflag.h"
#include "go_asm.h"
#include "kernel_amd64.h"

// func encipherVAES(s *keys, prev *[tagSize]byte, ad byte, body *byte, n int)
TEXT ·encipherVAES(SB), NOSPLIT, $0-40
	ENCIPHER(hashVAES, streamVAES)
	VZEROUPPER
	RET

// func decipherVAES(s *keys, prev *[tagSize]byte, ad byte, body *byte, n int)
TEXT ·decipherVAES(SB), NOSPLIT, $0-40
	DECIPHER(hashVAES, streamVAES)
	VZEROUPPER
	RET

#define MULY(POWERS) MUL(POWERS, Y0, Y1, Y2, Y3, Y4, Y5)

// MULGROUP is MUL of the pair Y0 by one power, whose halves' sum is in SUM.
#define MULGROUP(POWER, SUM) \
	VBROADCASTI128 POWER, Y4         \
	VPCLMULQDQ     $0x00, Y4, Y0, Y5 \
	VPCLMULQDQ     $0x11, Y4, Y0, Y6 \
	VPXOR          Y5, Y1, Y1        \
	VPXOR          Y6, Y2, Y2        \
	VPSHUFD        $0x4e, Y0, Y4     \
	VPXOR          Y4, Y0, Y0        \
	VPCLMULQDQ     $0x00, SUM, Y0, Y5 \
	VPXOR          Y5, Y3, Y3

// SUMOFHALVES gives SUM, the sum of the halves of a power, in both lanes.
#define SUMOFHALVES(POWER, SUM) \
	VBROADCASTI128 POWER, SUM     \
	VPSHUFD        $0x4e, SUM, Y0 \
	VPXOR          Y0, SUM, SUM

#define ZERO(A) VPXOR A, A, A

// LASTBLOCK loads the block that has the last CX bytes, 1 to 16, of those to hash.
#define LASTBLOCK(X) \
	VMOVDQU -16(DX)(CX*1), X    \
	LEAQ    window<>+32(SB), AX \
	SUBQ    CX, AX              \
	VPSHUFB (AX), X, X

// hashVAES: X7 = the hash that continues on X7 with CX bytes at DX, CX > 16.
//
// The lanes go separate ways until the end: the lower has every other block from
// the first on, the upper the others, and both use the even powers, so that the
// sum of the upper lane is too high by one power. The last blocks take the powers
// that are theirs, which mends it. For this there must be two of them or more.
TEXT hashVAES<>(SB), NOSPLIT, $0-0
	LEAQ           -1(CX), AX
	ANDQ           $127, AX
	CMPQ           AX, $16
	JGE            paired
	VPXOR          (DX), X7, X7
	PRODUCT(X7, keys_ku+BLOCKS(7)(R8), X7)
	ADDQ           $16, DX
	SUBQ           $16, CX

paired:
	CMPQ           CX, $BLOCKS(8)
	JLE            tail
	VINSERTI128    $1, X15, Y15, Y15
	SUMOFHALVES(keys_ku+BLOCKS(0)(R8), Y8)
	SUMOFHALVES(keys_ku+BLOCKS(2)(R8), Y9)
	SUMOFHALVES(keys_ku+BLOCKS(4)(R8), Y10)
	SUMOFHALVES(keys_ku+BLOCKS(6)(R8), Y11)

group:
	ZERO(Y1)
	ZERO(Y2)
	ZERO(Y3)
	VMOVDQU BLOCKS(2)(DX), Y0
	MULGROUP(keys_ku+BLOCKS(2)(R8), Y9)
	VMOVDQU BLOCKS(4)(DX), Y0
	MULGROUP(keys_ku+BLOCKS(4)(R8), Y10)
	VMOVDQU BLOCKS(6)(DX), Y0
	MULGROUP(keys_ku+BLOCKS(6)(R8), Y11)
	VPXOR   (DX), Y7, Y0
	MULGROUP(keys_ku+BLOCKS(0)(R8), Y8)
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
	MULY((R10))
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
	MULY((R10))
	JMP         fold

single:
	// What is loaded here beyond the last power meets zeros.
	LASTBLOCK(X0)
	MULY((R10))

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
