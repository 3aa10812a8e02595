//go:build !purego

// The kernel for AES-NI, PCLMULQDQ and AVX, on 128 bits, and what sets up the
// keys for both kernels. kernel_amd64.h explains the whole.

#include "textflag.h"
#include "go_asm.h"
#include "kernel_amd64.h"

// func encipherAESNI(s *keys, prev, nonce *[tagSize]byte, body *byte, n, stride, count int, ad byte) (done int)
TEXT ·encipherAESNI(SB), NOSPLIT, $0-72
	ENCIPHER(hashAESNI, streamAESNI, bothAESNI)
	RET

// func decipherAESNI(s *keys, prev, _ *[tagSize]byte, body *byte, n int, ad byte)
TEXT ·decipherAESNI(SB), NOSPLIT, $0-41
	DECIPHER(hashAESNI, streamAESNI)
	RET

// SUM is how far before a power the sum of its halves is.
#define SUM (keys_high-keys_ku)

#define MULX(N) MUL(keys_ku+BLOCKS(N)(R8), keys_high+BLOCKS(N)(R8), X0, X1, X2, X3, X5)

#define MULNEXT MUL((R10), SUM(R10), X0, X1, X2, X3, X5)

// hashAESNI: X7 = the hash that continues on X7 with CX bytes at DX, CX > 0.
TEXT hashAESNI<>(SB), NOSPLIT, $0-0
group:
	CMPQ    CX, $BLOCKS(8)
	JLE     tail
	VPXOR   X1, X1, X1
	VPXOR   X2, X2, X2
	VPXOR   X3, X3, X3
	VMOVDQU BLOCKS(1)(DX), X0
	MULX(1)
	VMOVDQU BLOCKS(2)(DX), X0
	MULX(2)
	VMOVDQU BLOCKS(3)(DX), X0
	MULX(3)
	VMOVDQU BLOCKS(4)(DX), X0
	MULX(4)
	VMOVDQU BLOCKS(5)(DX), X0
	MULX(5)
	VMOVDQU BLOCKS(6)(DX), X0
	MULX(6)
	VMOVDQU BLOCKS(7)(DX), X0
	MULX(7)
	VPXOR   (DX), X7, X0
	MULX(0)
	REDUCE(X15, X1, X2, X3, X5, X7)
	ADDQ    $BLOCKS(8), DX
	SUBQ    $BLOCKS(8), CX
	JMP     group

tail:
	// 1 to 128 bytes: as many powers from the end as there are blocks.
	LEAQ  15(CX), AX
	ANDQ  $-16, AX
	LEAQ  keys_ku+BLOCKS(8)(R8), R10
	SUBQ  AX, R10
	VPXOR X1, X1, X1
	VPXOR X2, X2, X2
	VPXOR X3, X3, X3

block:
	CMPQ  CX, $16
	JLE   last
	VPXOR (DX), X7, X0
	VPXOR X7, X7, X7
	MULNEXT
	ADDQ  $16, DX
	ADDQ  $16, R10
	SUBQ  $16, CX
	JMP   block

last:
	VMOVDQU -16(DX)(CX*1), X0
	LEAQ    window<>+32(SB), AX
	SUBQ    CX, AX
	VPSHUFB (AX), X0, X0
	VPXOR   X7, X0, X0
	MULNEXT
	REDUCE(X15, X1, X2, X3, X5, X7)
	RET

// streamAESNI adds the keystream from counter block X13 on to CX bytes at DI,
// which follow on 16 bytes of the same body.
TEXT streamAESNI<>(SB), NOSPLIT, $0-0
	VMOVDQU count<>+BLOCKS(8)(SB), X12

eight:
	VPXOR  keys_k(R8), X13, X9
	VPADDB X12, X13, X13
	WHITEN(0, X9, X0)
	WHITEN(1, X9, X1)
	WHITEN(2, X9, X2)
	WHITEN(3, X9, X3)
	CMPQ   CX, $BLOCKS(4)
	JLE    four
	WHITEN(4, X9, X4)
	WHITEN(5, X9, X5)
	WHITEN(6, X9, X6)
	WHITEN(7, X9, X7)
	KEYSTREAM8(VMOVDQU, X8, X0, X1, X2, X3, X4, X5, X6, X7)
	XORBODY(BLOCKS(0), X0)
	XORBODY(BLOCKS(1), X1)
	XORBODY(BLOCKS(2), X2)
	XORBODY(BLOCKS(3), X3)
	CMPQ   CX, $BLOCKS(8)
	JLT    half
	XORBODY(BLOCKS(4), X4)
	XORBODY(BLOCKS(5), X5)
	XORBODY(BLOCKS(6), X6)
	XORBODY(BLOCKS(7), X7)
	ADDQ   $BLOCKS(8), DI
	SUBQ   $BLOCKS(8), CX
	JNE    eight
	RET

half:
	ADDQ    $BLOCKS(4), DI
	SUBQ    $BLOCKS(4), CX
	VMOVDQU X4, X0
	VMOVDQU X5, X1
	VMOVDQU X6, X2
	VMOVDQU X7, X3
	JMP     rest

four:
	KEYSTREAM4(VMOVDQU, X8, X0, X1, X2, X3)

rest:
	// 1 to 64 bytes, with their keystream in X0 to X3.
	CMPQ    CX, $16
	JLT     last
	XORBODY(0, X0)
	ADDQ    $16, DI
	SUBQ    $16, CX
	VMOVDQU X1, X0
	VMOVDQU X2, X1
	VMOVDQU X3, X2
	JMP     rest

last:
	TESTQ   CX, CX
	JEQ     done
	LEAQ    window<>(SB), AX
	VPSHUFB (AX)(CX*1), X0, X0
	VPXOR   -16(DI)(CX*1), X0, X0
	VMOVDQU X0, -16(DI)(CX*1)

done:
	RET

// ROUND is a round of eight blocks of keystream, ROUNDMUL one beside the product
// of the block that is I blocks on and the power that it takes.
#define ROUND(OP, I) ROUND8(OP, VMOVDQU, I, X14, X0, X1, X2, X3, X4, X5, X6, X7)

#define MULBESIDE(I) MUL(keys_ku+BLOCKS(I)(R8), keys_high+BLOCKS(I)(R8), X8, X9, X10, X11, X14)

#define ROUNDMUL(I) \
	ROUND(VAESENC, I)         \
	VMOVDQU BLOCKS(I)(DX), X8 \
	MULBESIDE(I)

// bothAESNI goes on with the hash as hashAESNI does, and with the keystream as
// streamAESNI does with SI bytes for CX, of which it leaves what the last groups do
// not fill: fewer than 128. CX > SI.
TEXT bothAESNI<>(SB), NOSPLIT, $0-0
	VMOVDQU X7, X15
	CMPQ    CX, $BLOCKS(8)
	JLE     hash

group:
	VPXOR   keys_k(R8), X13, X8
	VPADDB  count<>+BLOCKS(8)(SB), X13, X13
	WHITEN(0, X8, X0)
	WHITEN(1, X8, X1)
	WHITEN(2, X8, X2)
	WHITEN(3, X8, X3)
	WHITEN(4, X8, X4)
	WHITEN(5, X8, X5)
	WHITEN(6, X8, X6)
	WHITEN(7, X8, X7)
	VPXOR   X9, X9, X9
	VPXOR   X10, X10, X10
	VPXOR   X11, X11, X11
	ROUNDMUL(1)
	ROUNDMUL(2)
	ROUNDMUL(3)
	ROUNDMUL(4)
	ROUNDMUL(5)
	ROUNDMUL(6)
	ROUNDMUL(7)
	ROUND(VAESENC, 8)
	VPXOR   (DX), X15, X8
	MULBESIDE(0)
	ROUND(VAESENC, 9)
	REDUCE(field<>(SB), X9, X10, X11, X14, X15)
	ROUND(VAESENCLAST, 10)
	XORBODY(BLOCKS(0), X0)
	XORBODY(BLOCKS(1), X1)
	XORBODY(BLOCKS(2), X2)
	XORBODY(BLOCKS(3), X3)
	XORBODY(BLOCKS(4), X4)
	XORBODY(BLOCKS(5), X5)
	XORBODY(BLOCKS(6), X6)
	XORBODY(BLOCKS(7), X7)
	ADDQ    $BLOCKS(8), DI
	SUBQ    $BLOCKS(8), SI
	ADDQ    $BLOCKS(8), DX
	SUBQ    $BLOCKS(8), CX
	CMPQ    CX, $BLOCKS(8)
	JGT     group

hash:
	VMOVDQU X15, X7
	VMOVDQU field<>(SB), X15
	JMP     hashAESNI<>(SB)

// ROUNDKEY makes round key I of the one before in X, and stores it at KEYS. The
// last word, turned by a byte, is brought to all columns, so that ShiftRows finds
// nothing to move and VAESENCLAST is SubWord and the addition of the constant.
#define ROUNDKEY(I, KEYS, X, T, U) \
	VPSHUFB turn<>(SB), X, T    \
	VBROADCASTSS rcon<>+(4*(I-1))(SB), U \
	VAESENCLAST U, T, T         \
	VPSLLDQ $4, X, U            \
	VPXOR   U, X, X             \
	VPSLLDQ $8, X, U            \
	VPXOR   U, X, X             \
	VPXOR   T, X, X             \
	VMOVDQU X, KEYS+BLOCKS(I)(R8)

// Both schedules side by side, for each waits long for itself.
#define ROUNDKEYS(I) \
	ROUNDKEY(I, keys_kb, X9, X10, X11) \
	ROUNDKEY(I, keys_k, X12, X13, X14)

// KEEPPOWER stores X, which is KU^N, and in keys.high the sum of its halves.
#define KEEPPOWER(N, X) \
	VMOVDQU X, keys_ku+BLOCKS((8-N))(R8)   \
	VPSHUFD $0x4e, X, X1                   \
	VPXOR   X, X1, X1                      \
	VMOVDQU X1, keys_high+BLOCKS((8-N))(R8)

// POWER makes KU^N, the product of X and KU^M, and leaves it in X0.
#define POWER(N, X, M) \
	PRODUCT(X, keys_ku+BLOCKS((8-M))(R8), X0) \
	KEEPPOWER(N, X0)

// INVERT swaps the round keys I and J of KB, and makes them what VAESDEC takes.
#define INVERT(I, J) \
	VAESIMC keys_kb+BLOCKS(I)(R8), X0  \
	VAESIMC keys_kb+BLOCKS(J)(R8), X1  \
	VMOVDQU X0, keys_kb+BLOCKS(J)(R8)  \
	VMOVDQU X1, keys_kb+BLOCKS(I)(R8)

// func expandAMD64(s *keys, k *[64]byte, inverse bool)
TEXT ·expandAMD64(SB), NOSPLIT, $0-17
	MOVQ    s+0(FP), R8
	MOVQ    k+8(FP), SI
	VMOVDQU field<>(SB), X15
	VMOVDQU 0(SI), X9
	VMOVDQU 16(SI), X6
	VMOVDQU 32(SI), X12
	VMOVDQU 48(SI), X0
	VMOVDQU X9, keys_kb(R8)
	KEEPPOWER(1, X6)
	VMOVDQU X12, keys_k(R8)
	VMOVDQU X0, keys_b(R8)

	// The round keys and the powers of KU in turn: neither waits for the other.
	ROUNDKEYS(1)
	POWER(2, X6, 1)
	VMOVDQU X0, X7
	ROUNDKEYS(2)
	POWER(4, X7, 2)
	VMOVDQU X0, X8
	ROUNDKEYS(3)
	POWER(3, X7, 1)
	ROUNDKEYS(4)
	POWER(8, X8, 4)
	ROUNDKEYS(5)
	POWER(6, X8, 2)
	ROUNDKEYS(6)
	POWER(5, X8, 1)
	ROUNDKEYS(7)
	POWER(7, X8, 3)
	ROUNDKEYS(8)
	ROUNDKEYS(9)
	ROUNDKEYS(10)

	MOVBLZX inverse+16(FP), AX
	TESTL   AX, AX
	JEQ     done
	VMOVDQU keys_kb+BLOCKS(0)(R8), X0
	VMOVDQU keys_kb+BLOCKS(10)(R8), X1
	VMOVDQU X0, keys_kb+BLOCKS(10)(R8)
	VMOVDQU X1, keys_kb+BLOCKS(0)(R8)
	INVERT(1, 9)
	INVERT(2, 8)
	INVERT(3, 7)
	INVERT(4, 6)
	INVERT(5, 5)

done:
	RET

// What brings the last word, turned by a byte, to all four.
DATA turn<>+0(SB)/8, $0x0c0f0e0d0c0f0e0d
DATA turn<>+8(SB)/8, $0x0c0f0e0d0c0f0e0d
GLOBL turn<>(SB), RODATA|NOPTR, $16

// The constants of the ten round keys.
DATA rcon<>+0(SB)/8, $0x0000000200000001
DATA rcon<>+8(SB)/8, $0x0000000800000004
DATA rcon<>+16(SB)/8, $0x0000002000000010
DATA rcon<>+24(SB)/8, $0x0000008000000040
DATA rcon<>+32(SB)/8, $0x000000360000001b
GLOBL rcon<>(SB), RODATA|NOPTR, $40

// COUNTER makes X the counter block whose low half is AX, and counts on.
#define COUNTER(X) \
	MOVQ    AX, BX           \
	BSWAPQ  BX               \
	VPINSRQ $1, BX, X13, X   \
	VPXOR   keys_k(R8), X, X \
	INCQ    AX

// func stretchAMD64(s *keys, y *[tagSize]byte, first uint64, out *[KeySize]byte)
TEXT ·stretchAMD64(SB), NOSPLIT, $0-32
	MOVQ    s+0(FP), R8
	MOVQ    y+8(FP), R9
	MOVQ    out+24(FP), DI
	VMOVDQU field<>(SB), X15
	FIRSTCOUNTER((R9))
	VPEXTRQ $1, X13, AX
	BSWAPQ  AX
	ADDQ    first+16(FP), AX
	COUNTER(X0)
	COUNTER(X1)
	COUNTER(X2)
	COUNTER(X3)
	COUNTER(X4)
	KEYSTREAM8(VMOVDQU, X8, X0, X1, X2, X3, X4, X5, X6, X7)
	VMOVDQU X0, BLOCKS(0)(DI)
	VMOVDQU X1, BLOCKS(1)(DI)
	VMOVDQU X2, BLOCKS(2)(DI)
	VMOVDQU X3, BLOCKS(3)(DI)
	VMOVDQU X4, BLOCKS(4)(DI)
	RET

// func leaf7() (ecx uint32)
TEXT ·leaf7(SB), NOSPLIT, $0-4
	MOVL $7, AX
	XORL CX, CX
	CPUID
	MOVL CX, ecx+0(FP)
	RET
