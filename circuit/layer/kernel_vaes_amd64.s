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

// FOLD adds the upper lane of Y to the lower.
#define FOLD(X, Y, T) \
	VEXTRACTI128 $1, Y, T \
	VPXOR        T, X, X

// REDUCEY is REDUCE of the sums of both lanes into X7.
#define REDUCEY \
	FOLD(X1, Y1, X4) \
	FOLD(X2, Y2, X5) \
	FOLD(X3, Y3, X6) \
	REDUCE(X1, X2, X3, X5, X7)

// LASTBLOCK loads the block that has the last CX bytes, 1 to 16, of those to hash.
#define LASTBLOCK(X) \
	VMOVDQU -16(DX)(CX*1), X    \
	LEAQ    window<>+32(SB), AX \
	SUBQ    CX, AX              \
	VPSHUFB (AX), X, X

// hashVAES: X7 = POLYVAL_KU(T' | CX bytes at DX), where CX > 0. The upper lane of
// Y7 is zero whenever Y7 is added, as VEX instructions on X registers make it.
TEXT hashVAES<>(SB), NOSPLIT, $0-0
	PRODUCT((R9), keys_ku+BLOCKS(7)(R8), X7)

group:
	CMPQ    CX, $BLOCKS(8)
	JLE     tail
	VPXOR   Y1, Y1, Y1
	VPXOR   Y2, Y2, Y2
	VPXOR   Y3, Y3, Y3
	VMOVDQU BLOCKS(2)(DX), Y0
	MULY(keys_ku+BLOCKS(2)(R8))
	VMOVDQU BLOCKS(4)(DX), Y0
	MULY(keys_ku+BLOCKS(4)(R8))
	VMOVDQU BLOCKS(6)(DX), Y0
	MULY(keys_ku+BLOCKS(6)(R8))
	VPXOR   (DX), Y7, Y0
	MULY(keys_ku+BLOCKS(0)(R8))
	REDUCEY
	ADDQ    $BLOCKS(8), DX
	SUBQ    $BLOCKS(8), CX
	JMP     group

tail:
	// 1 to 128 bytes: as many powers from the end as there are blocks.
	LEAQ  15(CX), AX
	ANDQ  $-16, AX
	LEAQ  keys_ku+BLOCKS(8)(R8), R10
	SUBQ  AX, R10
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3

pair:
	CMPQ  CX, $32
	JLE   last
	VPXOR (DX), Y7, Y0
	VPXOR Y7, Y7, Y7
	MULY((R10))
	ADDQ  $32, DX
	ADDQ  $32, R10
	SUBQ  $32, CX
	JMP   pair

last:
	CMPQ        CX, $16
	JLE         single
	VPXOR       (DX), X7, X7
	SUBQ        $16, CX
	ADDQ        $16, DX
	LASTBLOCK(X0)
	VINSERTI128 $1, X0, Y7, Y0
	MULY((R10))
	REDUCEY
	RET

single:
	// Of the two powers loaded here the second is B, and meets a zero.
	LASTBLOCK(X0)
	VPXOR X7, X0, X0
	MULY((R10))
	REDUCEY
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
