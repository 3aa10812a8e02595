//go:build !purego

// The kernel for VAES and VPCLMULQDQ on 512 bits, and AVX-512F, BW and VL: four
// blocks to a register.
//
// Field. GCM numbers the bits of a block from the left. With the bytes of every
// block in the other order, and H multiplied by x, its hash is POLYVAL (RFC 8452,
// appendix A): a block is a polynomial over GF(2), bit i of its little-endian number
// the coefficient of x^i, modulo p = x^128 + x^127 + x^126 + x^121 + 1; the product
// is a·b·x^-128. The sum between calls, and the powers of H, are such elements.
//
// Product. With a = a1·x^64 + a0 and b the same, Karatsuba takes three products:
//
//	lo = a0·b0    hi = a1·b1    mid = (a0+a1)·(b0+b1)
//	a·b = hi·x^128 + (mid + lo + hi)·x^64 + lo
//
// Sums of products are added up as lo, hi and mid and put together once.
//
// Reduction. p = x^128 + q·x^64 + 1 with q = 0xc2 << 56, so adding p times the lowest
// 64 bits of a number clears them, and adds their product with q to the 128 bits
// above them and themselves to the upper half of these. That is done twice.
//
// Hash. H^16 … H^1 stand in order, so that blocks x1 … xm, m <= 16, that follow on a
// sum r take those from H^m on: (r + x1)·H^m + x2·H^(m-1) + … + xm·H. Sixteen at a
// time are four registers; the lanes are added up after the reduction.
//
// Keystream. The counter blocks are kept with their bytes in the other order too,
// so that their counter is the lowest 32 bits of a lane. VAESENCLAST ends in the
// addition of the last round key. It is given the sum of this key and the text.
//
// Both. Rounds of AES and products use different parts of the machine, so they go
// side by side: opening, of the same sixteen blocks; sealing, the hash of those that
// were sealed before.
//
// Last bytes. Loads and stores are masked by K1, which has a bit a byte; bytes that
// are masked are not touched, and read as zero. Branches and addresses depend on
// lengths alone.
//
// Registers:
//
//	R8  keys (offsets from go_asm.h)      R9  sum
//	DI  text        DX  what to hash      CX  bytes left of either
//	R10 next power  AX  scratch
//	1-3   lo, hi and mid of the sum       16-19 powers, four each
//	5-6   scratch                         20-23 the halves of these, added
//	7     r                               24-27 keystream
//	8, 10-12 blocks to hash               28    round key
//	9     scratch of the text             29    4, in all lanes
//	13    next counter blocks             30    the order of bytes
//	31    field in all lanes

#include "textflag.h"
#include "go_asm.h"

#define BLOCKS(n) (n*16)

#define ZERO(A) VPXORQ A, A, A

// SUMOFHALVES gives SUM, the sum of the halves of A.
#define SUMOFHALVES(A, SUM) \
	VPSHUFD $0x4e, A, SUM \
	VPXORQ  A, SUM, SUM

// MUL adds the products of the blocks D and powers H, whose halves' sums are in
// SUM, to Z1 to Z3. It changes Z5 and Z6.
#define MUL(D, H, SUM) \
	VPCLMULQDQ $0x00, H, D, Z5    \
	VPCLMULQDQ $0x11, H, D, Z6    \
	VPXORQ     Z5, Z1, Z1         \
	VPXORQ     Z6, Z2, Z2         \
	SUMOFHALVES(D, Z5)            \
	VPCLMULQDQ $0x00, SUM, Z5, Z6 \
	VPXORQ     Z6, Z3, Z3

#define ZEROSUM \
	ZERO(Z1) \
	ZERO(Z2) \
	ZERO(Z3)

// REDUCE gives Z7, the elements that Z1 to Z3 are, lane by lane. VPTERNLOGQ with
// 0x96 adds two registers to a third.
#define REDUCE \
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

// MASK selects the first N bytes of a register in K1; all for 64 or more.
#define MASK(N) \
	MOVQ  $-1, AX   \
	BZHIQ N, AX, AX \
	KMOVQ AX, K1

// CONSTANTS loads what all take.
#define CONSTANTS \
	VBROADCASTI32X4 field<>(SB), Z31   \
	VBROADCASTI32X4 reverse<>(SB), Z30

// ARGUMENTS loads those of sealVAES512 and openVAES512.
#define ARGUMENTS \
	MOVQ    k+0(FP), R8         \
	MOVQ    counter+8(FP), AX   \
	MOVQ    sum+16(FP), R9      \
	MOVQ    text+24(FP), DI     \
	MOVQ    n+32(FP), CX        \
	CONSTANTS                   \
	VBROADCASTI32X4 (AX), Z13   \
	VPSHUFB Z30, Z13, Z13       \
	VPADDD  lanes<>(SB), Z13, Z13 \
	VBROADCASTI32X4 four<>(SB), Z29 \
	VMOVDQU (R9), X7

// KEEPPOWERS loads all powers, and adds their halves.
#define KEEPPOWERS \
	VMOVDQU64 keys_powers+BLOCKS(0)(R8), Z16  \
	VMOVDQU64 keys_powers+BLOCKS(4)(R8), Z17  \
	VMOVDQU64 keys_powers+BLOCKS(8)(R8), Z18  \
	VMOVDQU64 keys_powers+BLOCKS(12)(R8), Z19 \
	SUMOFHALVES(Z16, Z20)                     \
	SUMOFHALVES(Z17, Z21)                     \
	SUMOFHALVES(Z18, Z22)                     \
	SUMOFHALVES(Z19, Z23)

// KEY brings round key I to all lanes of Z28.
#define KEY(I) VBROADCASTI32X4 keys_rounds+BLOCKS(I)(R8), Z28

// BEGIN starts sixteen blocks of keystream, ROUND does one round of them.
#define BEGIN \
	KEY(0)                  \
	VPSHUFB Z30, Z13, Z24   \
	VPADDD  Z29, Z13, Z13   \
	VPSHUFB Z30, Z13, Z25   \
	VPADDD  Z29, Z13, Z13   \
	VPSHUFB Z30, Z13, Z26   \
	VPADDD  Z29, Z13, Z13   \
	VPSHUFB Z30, Z13, Z27   \
	VPADDD  Z29, Z13, Z13   \
	VPXORQ  Z28, Z24, Z24   \
	VPXORQ  Z28, Z25, Z25   \
	VPXORQ  Z28, Z26, Z26   \
	VPXORQ  Z28, Z27, Z27

#define ROUND(I) \
	KEY(I)                  \
	VAESENC Z28, Z24, Z24   \
	VAESENC Z28, Z25, Z25   \
	VAESENC Z28, Z26, Z26   \
	VAESENC Z28, Z27, Z27

// ROUNDS does all but the last.
#define ROUNDS \
	ROUND(1) \
	ROUND(2) \
	ROUND(3) \
	ROUND(4) \
	ROUND(5) \
	ROUND(6) \
	ROUND(7) \
	ROUND(8) \
	ROUND(9) \
	ROUND(10) \
	ROUND(11) \
	ROUND(12) \
	ROUND(13)

// LAST does the last round of A, and adds it to the text at OFF.
#define LAST(OFF, A) \
	VPXORQ      OFF(DI), Z28, Z9 \
	VAESENCLAST Z9, A, A         \
	VMOVDQU64   A, OFF(DI)

#define LASTROWS \
	KEY(14)                \
	LAST(BLOCKS(0), Z24)   \
	LAST(BLOCKS(4), Z25)   \
	LAST(BLOCKS(8), Z26)   \
	LAST(BLOCKS(12), Z27)

// BOTH does sixteen blocks of keystream but for the last round, and goes on with
// the hash on those in Z8 and Z10 to Z12, of which the first has r in it.
#define BOTH \
	BEGIN                  \
	ZEROSUM                \
	ROUND(1)               \
	MUL(Z10, Z17, Z21)     \
	ROUND(2)               \
	ROUND(3)               \
	MUL(Z11, Z18, Z22)     \
	ROUND(4)               \
	ROUND(5)               \
	MUL(Z12, Z19, Z23)     \
	ROUND(6)               \
	ROUND(7)               \
	MUL(Z8, Z16, Z20)      \
	ROUND(8)               \
	REDUCE                 \
	ROUND(9)               \
	ROUND(10)              \
	FOLD                   \
	ROUND(11)              \
	ROUND(12)              \
	ROUND(13)

// AESBLOCK is AES of X.
#define AESBLOCK(X) \
	VPXOR       keys_rounds+BLOCKS(0)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(1)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(2)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(3)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(4)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(5)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(6)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(7)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(8)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(9)(R8), X, X  \
	VAESENC     keys_rounds+BLOCKS(10)(R8), X, X \
	VAESENC     keys_rounds+BLOCKS(11)(R8), X, X \
	VAESENC     keys_rounds+BLOCKS(12)(R8), X, X \
	VAESENC     keys_rounds+BLOCKS(13)(R8), X, X \
	VAESENCLAST keys_rounds+BLOCKS(14)(R8), X, X

// NEXTKEY makes round key I in X of the one two before it in X and of the last word
// of the one before it, in OTHER: for WORD 0xff turned by a byte and with RCON, for
// 0xaa without either.
#define NEXTKEY(I, RCON, WORD, OTHER, X) \
	VAESKEYGENASSIST $RCON, OTHER, X2 \
	VPSHUFD $WORD, X2, X2             \
	VPSLLDQ $4, X, X3                 \
	VPXOR   X3, X, X                  \
	VPSLLDQ $8, X, X3                 \
	VPXOR   X3, X, X                  \
	VPXOR   X2, X, X                  \
	VMOVDQU X, keys_rounds+BLOCKS(I)(R8)

// absorb: X7 = the hash that continues on X7 with CX bytes at DX, 1 to 256. It
// changes Z0 to Z8.
TEXT absorb<>(SB), NOSPLIT, $0-0
	LEAQ 15(CX), AX
	ANDQ $-16, AX
	LEAQ keys_powers+BLOCKS(16)(R8), R10
	SUBQ AX, R10
	ZEROSUM

row:
	CMPQ      CX, $BLOCKS(4)
	JLE       last
	VMOVDQU64 (DX), Z0
	VPSHUFB   Z30, Z0, Z0
	VPXORQ    Z7, Z0, Z0
	ZERO(Z7)
	VMOVDQU64 (R10), Z4
	SUMOFHALVES(Z4, Z8)
	MUL(Z0, Z4, Z8)
	ADDQ      $BLOCKS(4), DX
	ADDQ      $BLOCKS(4), R10
	SUBQ      $BLOCKS(4), CX
	JMP       row

last:
	// What is loaded here beyond the powers meets zeros.
	MASK(CX)
	VMOVDQU8.Z (DX), K1, Z0
	VPSHUFB    Z30, Z0, Z0
	VPXORQ     Z7, Z0, Z0
	VMOVDQU64  (R10), Z4
	SUMOFHALVES(Z4, Z8)
	MUL(Z0, Z4, Z8)
	REDUCE
	FOLD
	RET

// func absorbVAES512(k *keys, sum *[16]byte, data *byte, n int)
TEXT ·absorbVAES512(SB), NOSPLIT, $0-32
	MOVQ    k+0(FP), R8
	MOVQ    sum+8(FP), R9
	MOVQ    data+16(FP), DX
	MOVQ    n+24(FP), DI
	CONSTANTS
	VMOVDQU (R9), X7

group:
	MOVQ    $BLOCKS(16), CX
	CMPQ    DI, CX
	CMOVQLT DI, CX
	SUBQ    CX, DI
	CALL    absorb<>(SB)
	ADDQ    CX, DX // CX and DX have become the last bytes and where they are
	TESTQ   DI, DI
	JNE     group
	VMOVDQU X7, (R9)
	VZEROUPPER
	RET

// finish adds the keystream to CX bytes at DI, 1 to 255.
TEXT finish<>(SB), NOSPLIT, $0-0
	BEGIN
	ROUNDS
	KEY(14)

row:
	CMPQ      CX, $BLOCKS(4)
	JLE       last
	LAST(0, Z24)
	ADDQ      $BLOCKS(4), DI
	SUBQ      $BLOCKS(4), CX
	VMOVDQA64 Z25, Z24
	VMOVDQA64 Z26, Z25
	VMOVDQA64 Z27, Z26
	JMP       row

last:
	MASK(CX)
	VMOVDQU8.Z  (DI), K1, Z9
	VPXORQ      Z28, Z9, Z9
	VAESENCLAST Z9, Z24, Z24
	VMOVDQU8    Z24, K1, (DI)
	RET

// func sealVAES512(k *keys, counter, sum *[16]byte, text *byte, n int)
TEXT ·sealVAES512(SB), NOSPLIT, $0-40
	ARGUMENTS
	CMPQ    CX, $BLOCKS(16)
	JLT     rest
	KEEPPOWERS
	BEGIN
	ROUNDS

group:
	LASTROWS
	VPSHUFB Z30, Z24, Z8
	VPSHUFB Z30, Z25, Z10
	VPSHUFB Z30, Z26, Z11
	VPSHUFB Z30, Z27, Z12
	VPXORQ  Z7, Z8, Z8
	ADDQ    $BLOCKS(16), DI
	SUBQ    $BLOCKS(16), CX
	CMPQ    CX, $BLOCKS(16)
	JLT     flush
	BOTH
	JMP     group

flush:
	ZEROSUM
	MUL(Z10, Z17, Z21)
	MUL(Z11, Z18, Z22)
	MUL(Z12, Z19, Z23)
	MUL(Z8, Z16, Z20)
	REDUCE
	FOLD

rest:
	TESTQ   CX, CX
	JEQ     done
	MOVQ    DI, DX
	MOVQ    CX, R11
	CALL    finish<>(SB)
	MOVQ    R11, CX
	CALL    absorb<>(SB)

done:
	VMOVDQU X7, (R9)
	VZEROUPPER
	RET

// func openVAES512(k *keys, counter, sum *[16]byte, text *byte, n int)
TEXT ·openVAES512(SB), NOSPLIT, $0-40
	ARGUMENTS
	CMPQ      CX, $BLOCKS(16)
	JLT       rest
	KEEPPOWERS

group:
	VMOVDQU64 BLOCKS(0)(DI), Z8
	VMOVDQU64 BLOCKS(4)(DI), Z10
	VMOVDQU64 BLOCKS(8)(DI), Z11
	VMOVDQU64 BLOCKS(12)(DI), Z12
	VPSHUFB   Z30, Z8, Z8
	VPSHUFB   Z30, Z10, Z10
	VPSHUFB   Z30, Z11, Z11
	VPSHUFB   Z30, Z12, Z12
	VPXORQ    Z7, Z8, Z8
	BOTH
	LASTROWS
	ADDQ      $BLOCKS(16), DI
	SUBQ      $BLOCKS(16), CX
	CMPQ      CX, $BLOCKS(16)
	JGE       group

rest:
	TESTQ   CX, CX
	JEQ     done
	MOVQ    DI, DX
	MOVQ    CX, R11
	CALL    absorb<>(SB)
	MOVQ    R11, CX
	CALL    finish<>(SB)

done:
	VMOVDQU X7, (R9)
	VZEROUPPER
	RET

// func blockVAES512(k *keys, b *[16]byte)
TEXT ·blockVAES512(SB), NOSPLIT, $0-16
	MOVQ    k+0(FP), R8
	MOVQ    b+8(FP), AX
	VMOVDQU (AX), X0
	AESBLOCK(X0)
	VMOVDQU X0, (AX)
	RET

// func expandVAES512(k *keys, key *[KeySize]byte)
TEXT ·expandVAES512(SB), NOSPLIT, $0-16
	MOVQ    k+0(FP), R8
	MOVQ    key+8(FP), AX
	VMOVDQU 0(AX), X0
	VMOVDQU 16(AX), X1
	VMOVDQU X0, keys_rounds+BLOCKS(0)(R8)
	VMOVDQU X1, keys_rounds+BLOCKS(1)(R8)
	NEXTKEY(2, 0x01, 0xff, X1, X0)
	NEXTKEY(3, 0x00, 0xaa, X0, X1)
	NEXTKEY(4, 0x02, 0xff, X1, X0)
	NEXTKEY(5, 0x00, 0xaa, X0, X1)
	NEXTKEY(6, 0x04, 0xff, X1, X0)
	NEXTKEY(7, 0x00, 0xaa, X0, X1)
	NEXTKEY(8, 0x08, 0xff, X1, X0)
	NEXTKEY(9, 0x00, 0xaa, X0, X1)
	NEXTKEY(10, 0x10, 0xff, X1, X0)
	NEXTKEY(11, 0x00, 0xaa, X0, X1)
	NEXTKEY(12, 0x20, 0xff, X1, X0)
	NEXTKEY(13, 0x00, 0xaa, X0, X1)
	NEXTKEY(14, 0x40, 0xff, X1, X0)

	// H is AES of zero, in the other order, times x: shifted by a bit, with p added
	// for the bit that falls out.
	CONSTANTS
	ZERO(X7)
	AESBLOCK(X7)
	VPSHUFB reverse<>(SB), X7, X7
	VPSRLQ  $63, X7, X0
	VPSLLDQ $8, X0, X0
	VPSRAD  $31, X7, X1
	VPSHUFD $0xff, X1, X1
	VPAND   field<>(SB), X1, X1
	VPADDQ  X7, X7, X7
	VPXOR   X0, X7, X7
	VPXOR   X1, X7, X7
	VMOVDQU X7, keys_powers+BLOCKS(15)(R8)

	VMOVDQU X7, X4
	SUMOFHALVES(Z4, Z8)
	MOVQ    $BLOCKS(14), AX

power:
	ZEROSUM
	MUL(Z7, Z4, Z8)
	REDUCE
	VMOVDQU X7, keys_powers(R8)(AX*1)
	SUBQ    $16, AX
	JGE     power
	VZEROUPPER
	RET

// 1 | q << 64
DATA field<>+0(SB)/8, $1
DATA field<>+8(SB)/8, $0xc200000000000000
GLOBL field<>(SB), RODATA|NOPTR, $16

// The bytes of a block in the other order.
DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// Lane i has i.
DATA lanes<>+0(SB)/8, $0
DATA lanes<>+8(SB)/8, $0
DATA lanes<>+16(SB)/8, $1
DATA lanes<>+24(SB)/8, $0
DATA lanes<>+32(SB)/8, $2
DATA lanes<>+40(SB)/8, $0
DATA lanes<>+48(SB)/8, $3
DATA lanes<>+56(SB)/8, $0
GLOBL lanes<>(SB), RODATA|NOPTR, $64

DATA four<>+0(SB)/8, $4
DATA four<>+8(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $16
