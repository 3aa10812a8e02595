//go:build !purego

// The kernel for VAES, VPCLMULQDQ and AVX2, two blocks to a register. (One for four
// blocks to a register took 0.51 of the standard library's time on a Zen 4, where
// this one takes 0.52.)
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
// Sums of products are added up as lo, hi and mid and put together once. The sums
// of the halves of the powers stand in the keys.
//
// Reduction. p = x^128 + q·x^64 + 1 with q = 0xc2 << 56, so adding p times the lowest
// 64 bits of a number clears them, and adds their product with q to the 128 bits
// above them and themselves to the upper half of these. That is done twice.
//
// Hash. H^16 … H^1 stand in order, so that blocks x1 … xm, m <= 16, that follow on a
// sum r take those from H^m on: (r + x1)·H^m + x2·H^(m-1) + … + xm·H. The lanes are
// added up after the reduction.
//
// Keystream. The counter blocks are kept with their bytes in the other order too,
// so that their counter is the lowest 32 bits of a lane.
//
// Both. Rounds of AES and products use different parts of the machine, so they go
// side by side, of sixteen blocks each: opening, of the same ones; sealing, the hash
// of those that were sealed before. Eight of the sixteen registers are keystream, so
// that blocks to hash are loaded when they are multiplied, and a round key is loaded
// into what products then take as scratch.
//
// Last bytes. What is less than a block is copied byte by byte. Links have no such
// texts, but two bytes of data. Branches and addresses depend on lengths alone.
//
// Registers:
//
//	R8  keys (offsets from go_asm.h)      R9  sum
//	DI  text        DX  what to hash      CX  bytes left of either
//	R10 next power  R11 a buffer          AX, BX, R12 scratch
//	0-7   keystream                       12    a power, then its halves, added
//	8     blocks to hash                  13    next counter blocks
//	9-11  lo, hi and mid of the sum       14    round key, scratch of products
//	15    r

#include "textflag.h"
#include "go_asm.h"

#define BLOCKS(n) (n*16)

// MUL adds the products of the blocks D and POWERS, the sums of whose halves are
// SUMS, to LO, HI and MID. It changes D, H and T.
#define MUL(POWERS, SUMS, D, LO, HI, MID, H, T) \
	VMOVDQU    POWERS, H         \
	VPCLMULQDQ $0x00, H, D, T    \
	VPXOR      T, LO, LO         \
	VPCLMULQDQ $0x11, H, D, T    \
	VPXOR      T, HI, HI         \
	VMOVDQU    SUMS, H           \
	VPSHUFD    $0x4e, D, T       \
	VPXOR      T, D, D           \
	VPCLMULQDQ $0x00, H, D, T    \
	VPXOR      T, MID, MID

// REDUCE gives OUT, the elements that LO, HI and MID are. It changes all of them.
#define REDUCE(LO, HI, MID, T, OUT) \
	VPXOR      LO, MID, MID                \
	VPXOR      HI, MID, MID                \
	VPCLMULQDQ $0x10, field2<>(SB), LO, T  \
	VPSHUFD    $0x4e, LO, LO               \
	VPXOR      LO, MID, MID                \
	VPXOR      T, MID, MID                 \
	VPCLMULQDQ $0x10, field2<>(SB), MID, T \
	VPSHUFD    $0x4e, MID, MID             \
	VPXOR      MID, HI, HI                 \
	VPXOR      T, HI, OUT

#define ZERO(A) VPXOR A, A, A

#define ZEROSUM \
	ZERO(Y9)  \
	ZERO(Y10) \
	ZERO(Y11)

// MULPAIR is MUL of the pair Y8, the Nth of sixteen blocks and the next.
#define MULPAIR(N) MUL(keys_powers+BLOCKS(N)(R8), keys_sums+BLOCKS(N)(R8), Y8, Y9, Y10, Y11, Y12, Y14)

#define HASHPAIR(N) \
	VMOVDQU BLOCKS(N)(DX), Y8         \
	VPSHUFB reverse2<>(SB), Y8, Y8    \
	MULPAIR(N)

// HASHFIRST is that of the first pair, which takes r.
#define HASHFIRST \
	VMOVDQU (DX), Y8                  \
	VPSHUFB reverse2<>(SB), Y8, Y8    \
	VPXOR   Y15, Y8, Y8               \
	MULPAIR(0)

// FOLD adds up the lanes of Y15 in X15.
#define FOLD \
	VEXTRACTI128 $1, Y15, X14 \
	VPXOR        X14, X15, X15

// KEY brings round key I to both lanes of Y14.
#define KEY(I) VBROADCASTI128 keys_rounds+BLOCKS(I)(R8), Y14

// COUNTER makes A the counter blocks that are N and N+1 from the next, whitened.
#define COUNTER(N, A) \
	VPADDD  counts<>+BLOCKS(N)(SB), Y13, A \
	VPSHUFB reverse2<>(SB), A, A           \
	VPXOR   Y14, A, A

// BEGIN starts sixteen blocks of keystream, ROUND does one round of them.
#define BEGIN \
	KEY(0)          \
	COUNTER(0, Y0)  \
	COUNTER(2, Y1)  \
	COUNTER(4, Y2)  \
	COUNTER(6, Y3)  \
	COUNTER(8, Y4)  \
	COUNTER(10, Y5) \
	COUNTER(12, Y6) \
	COUNTER(14, Y7) \
	VPADDD  sixteen<>(SB), Y13, Y13

#define OPROUND(OP, I) \
	KEY(I)          \
	OP Y14, Y0, Y0  \
	OP Y14, Y1, Y1  \
	OP Y14, Y2, Y2  \
	OP Y14, Y3, Y3  \
	OP Y14, Y4, Y4  \
	OP Y14, Y5, Y5  \
	OP Y14, Y6, Y6  \
	OP Y14, Y7, Y7

#define ROUND(I) OPROUND(VAESENC, I)

#define LASTROUND OPROUND(VAESENCLAST, 14)

// KEYSTREAM is sixteen blocks of it alone.
#define KEYSTREAM \
	BEGIN      \
	ROUND(1)   \
	ROUND(2)   \
	ROUND(3)   \
	ROUND(4)   \
	ROUND(5)   \
	ROUND(6)   \
	ROUND(7)   \
	ROUND(8)   \
	ROUND(9)   \
	ROUND(10)  \
	ROUND(11)  \
	ROUND(12)  \
	ROUND(13)  \
	LASTROUND

#define XORTEXT(OFF, A) \
	VPXOR   OFF(DI), A, A \
	VMOVDQU A, OFF(DI)

#define XORALL \
	XORTEXT(BLOCKS(0), Y0)  \
	XORTEXT(BLOCKS(2), Y1)  \
	XORTEXT(BLOCKS(4), Y2)  \
	XORTEXT(BLOCKS(6), Y3)  \
	XORTEXT(BLOCKS(8), Y4)  \
	XORTEXT(BLOCKS(10), Y5) \
	XORTEXT(BLOCKS(12), Y6) \
	XORTEXT(BLOCKS(14), Y7)

// BOTH does sixteen blocks of keystream, and goes on with the hash on those at DX.
#define BOTH \
	BEGIN        \
	ZEROSUM      \
	ROUND(1)     \
	HASHPAIR(2)  \
	ROUND(2)     \
	HASHPAIR(4)  \
	ROUND(3)     \
	HASHPAIR(6)  \
	ROUND(4)     \
	HASHPAIR(8)  \
	ROUND(5)     \
	HASHPAIR(10) \
	ROUND(6)     \
	HASHPAIR(12) \
	ROUND(7)     \
	HASHPAIR(14) \
	ROUND(8)     \
	HASHFIRST    \
	ROUND(9)     \
	ROUND(10)    \
	REDUCE(Y9, Y10, Y11, Y14, Y15) \
	ROUND(11)    \
	ROUND(12)    \
	FOLD         \
	ROUND(13)    \
	LASTROUND

// ARGUMENTS loads those of sealVAES and openVAES.
#define ARGUMENTS \
	MOVQ    k+0(FP), R8         \
	MOVQ    counter+8(FP), AX   \
	MOVQ    sum+16(FP), R9      \
	MOVQ    text+24(FP), DI     \
	MOVQ    n+32(FP), CX        \
	MOVQ    SP, R11             \
	VBROADCASTI128 (AX), Y13    \
	VPSHUFB reverse2<>(SB), Y13, Y13 \
	VMOVDQU (R9), X15           \
	VPADDD  lanes2<>(SB), Y13, Y13

// COPY copies AX bytes, 1 to 15, from SRC to DST. It changes AX and BX.
#define COPY(SRC, DST, LOOP) \
LOOP:                        \
	MOVB -1(SRC)(AX*1), BX   \
	MOVB BX, -1(DST)(AX*1)   \
	DECQ AX                  \
	JNE  LOOP

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

// KEEP stores X, the power that is OFF from the first, and the sum of its halves.
#define KEEP(X, OFF) \
	VMOVDQU X, keys_powers OFF      \
	VPSHUFD $0x4e, X, X14           \
	VPXOR   X, X14, X14             \
	VMOVDQU X14, keys_sums OFF

// blocks: X15 = the hash that continues on X15 with CX bytes at DX, 1 to 256. The
// buffer at R11 has room for a block. It changes X8 to X12, X14, DX and CX.
TEXT blocks<>(SB), NOSPLIT, $0-0
	LEAQ 15(CX), AX
	ANDQ $-16, AX
	LEAQ keys_powers+BLOCKS(16)(R8), R10
	SUBQ AX, R10
	ZEROSUM

block:
	CMPQ    CX, $16
	JLT     part
	VMOVDQU (DX), X8

multiply:
	VPSHUFB reverse2<>(SB), X8, X8
	VPXOR   X15, X8, X8
	ZERO(X15)
	MUL((R10), (keys_sums-keys_powers)(R10), X8, X9, X10, X11, X12, X14)
	ADDQ    $16, DX
	ADDQ    $16, R10
	SUBQ    $16, CX
	JGT     block
	REDUCE(X9, X10, X11, X14, X15)
	RET

part:
	ZERO(X8)
	VMOVDQU X8, (R11)
	MOVQ    CX, AX
	COPY(DX, R11, byte)
	VMOVDQU (R11), X8
	JMP     multiply

// finish adds the keystream to CX bytes at DI, 1 to 255. The buffer at R11 has room
// for 256 bytes. It changes Y0 to Y7, Y14, R10, DI and CX.
TEXT finish<>(SB), NOSPLIT, $0-0
	KEYSTREAM
	MOVQ    R11, R10
	VMOVDQU Y0, BLOCKS(0)(R11)
	VMOVDQU Y1, BLOCKS(2)(R11)
	VMOVDQU Y2, BLOCKS(4)(R11)
	VMOVDQU Y3, BLOCKS(6)(R11)
	VMOVDQU Y4, BLOCKS(8)(R11)
	VMOVDQU Y5, BLOCKS(10)(R11)
	VMOVDQU Y6, BLOCKS(12)(R11)
	VMOVDQU Y7, BLOCKS(14)(R11)

block:
	CMPQ    CX, $16
	JLT     bytes
	VMOVDQU (R10), X0
	VPXOR   (DI), X0, X0
	VMOVDQU X0, (DI)
	ADDQ    $16, R10
	ADDQ    $16, DI
	SUBQ    $16, CX
	JMP     block

bytes:
	TESTQ CX, CX
	JEQ   done

byte:
	MOVB -1(R10)(CX*1), BX
	XORB BX, -1(DI)(CX*1)
	DECQ CX
	JNE  byte

done:
	ZERO(Y0)
	VMOVDQU Y0, BLOCKS(0)(R11)
	VMOVDQU Y0, BLOCKS(2)(R11)
	VMOVDQU Y0, BLOCKS(4)(R11)
	VMOVDQU Y0, BLOCKS(6)(R11)
	VMOVDQU Y0, BLOCKS(8)(R11)
	VMOVDQU Y0, BLOCKS(10)(R11)
	VMOVDQU Y0, BLOCKS(12)(R11)
	VMOVDQU Y0, BLOCKS(14)(R11)
	RET

// func absorbVAES(k *keys, sum *[16]byte, data *byte, n int)
TEXT ·absorbVAES(SB), NOSPLIT, $16-32
	MOVQ    k+0(FP), R8
	MOVQ    sum+8(FP), R9
	MOVQ    data+16(FP), DX
	MOVQ    n+24(FP), R12
	MOVQ    SP, R11
	VMOVDQU (R9), X15

group:
	MOVQ    $BLOCKS(16), CX
	CMPQ    R12, CX
	CMOVQLT R12, CX
	SUBQ    CX, R12
	CALL    blocks<>(SB)
	TESTQ   R12, R12
	JNE     group
	VMOVDQU X15, (R9)
	VZEROUPPER
	RET

// func sealVAES(k *keys, counter, sum *[16]byte, text *byte, n int)
TEXT ·sealVAES(SB), NOSPLIT, $256-40
	ARGUMENTS
	CMPQ    CX, $BLOCKS(16)
	JLT     rest
	KEYSTREAM

group:
	XORALL
	MOVQ   DI, DX
	ADDQ   $BLOCKS(16), DI
	SUBQ   $BLOCKS(16), CX
	CMPQ   CX, $BLOCKS(16)
	JLT    flush
	BOTH
	JMP    group

flush:
	ZEROSUM
	HASHPAIR(2)
	HASHPAIR(4)
	HASHPAIR(6)
	HASHPAIR(8)
	HASHPAIR(10)
	HASHPAIR(12)
	HASHPAIR(14)
	HASHFIRST
	REDUCE(Y9, Y10, Y11, Y14, Y15)
	FOLD

rest:
	TESTQ   CX, CX
	JEQ     done
	MOVQ    DI, DX
	MOVQ    CX, R12
	CALL    finish<>(SB)
	MOVQ    R12, CX
	CALL    blocks<>(SB)

done:
	VMOVDQU X15, (R9)
	VZEROUPPER
	RET

// func openVAES(k *keys, counter, sum *[16]byte, text *byte, n int)
TEXT ·openVAES(SB), NOSPLIT, $256-40
	ARGUMENTS
	CMPQ    CX, $BLOCKS(16)
	JLT     rest

group:
	MOVQ   DI, DX
	BOTH
	XORALL
	ADDQ   $BLOCKS(16), DI
	SUBQ   $BLOCKS(16), CX
	CMPQ   CX, $BLOCKS(16)
	JGE    group

rest:
	TESTQ   CX, CX
	JEQ     done
	MOVQ    DI, DX
	MOVQ    CX, R12
	CALL    blocks<>(SB)
	MOVQ    R12, CX
	CALL    finish<>(SB)

done:
	VMOVDQU X15, (R9)
	VZEROUPPER
	RET

// func blockVAES(k *keys, b *[16]byte)
TEXT ·blockVAES(SB), NOSPLIT, $0-16
	MOVQ    k+0(FP), R8
	MOVQ    b+8(FP), AX
	VMOVDQU (AX), X0
	AESBLOCK(X0)
	VMOVDQU X0, (AX)
	RET

// func expandVAES(k *keys, key *[KeySize]byte)
TEXT ·expandVAES(SB), NOSPLIT, $0-16
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
	ZERO(X15)
	AESBLOCK(X15)
	VPSHUFB reverse2<>(SB), X15, X15
	VPSRLQ  $63, X15, X0
	VPSLLDQ $8, X0, X0
	VPSRAD  $31, X15, X1
	VPSHUFD $0xff, X1, X1
	VPAND   field2<>(SB), X1, X1
	VPADDQ  X15, X15, X15
	VPXOR   X0, X15, X15
	VPXOR   X1, X15, X15
	MOVQ    $BLOCKS(15), AX
	KEEP(X15, (R8)(AX*1))

power:
	VMOVDQU X15, X8
	ZEROSUM
	MUL(keys_powers+BLOCKS(15)(R8), keys_sums+BLOCKS(15)(R8), X8, X9, X10, X11, X12, X14)
	REDUCE(X9, X10, X11, X14, X15)
	SUBQ    $16, AX
	KEEP(X15, (R8)(AX*1))
	JNE     power
	VZEROUPPER
	RET

// func leaf7() (ecx uint32)
TEXT ·leaf7(SB), NOSPLIT, $0-4
	MOVL $7, AX
	XORL CX, CX
	CPUID
	MOVL CX, ecx+0(FP)
	RET

// 1 | q << 64, twice
DATA field2<>+0(SB)/8, $1
DATA field2<>+8(SB)/8, $0xc200000000000000
DATA field2<>+16(SB)/8, $1
DATA field2<>+24(SB)/8, $0xc200000000000000
GLOBL field2<>(SB), RODATA|NOPTR, $32

// The bytes of a block in the other order, twice.
DATA reverse2<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse2<>+8(SB)/8, $0x0001020304050607
DATA reverse2<>+16(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse2<>+24(SB)/8, $0x0001020304050607
GLOBL reverse2<>(SB), RODATA|NOPTR, $32

// Both lanes of the pair at BLOCKS(n) have n. The first has 0, and lanes2, what the
// lanes differ by, 0 and 1.
DATA counts<>+0x00(SB)/8, $0
DATA counts<>+0x08(SB)/8, $0
DATA counts<>+0x10(SB)/8, $0
DATA counts<>+0x18(SB)/8, $0
DATA counts<>+0x20(SB)/8, $2
DATA counts<>+0x28(SB)/8, $0
DATA counts<>+0x30(SB)/8, $2
DATA counts<>+0x38(SB)/8, $0
DATA counts<>+0x40(SB)/8, $4
DATA counts<>+0x48(SB)/8, $0
DATA counts<>+0x50(SB)/8, $4
DATA counts<>+0x58(SB)/8, $0
DATA counts<>+0x60(SB)/8, $6
DATA counts<>+0x68(SB)/8, $0
DATA counts<>+0x70(SB)/8, $6
DATA counts<>+0x78(SB)/8, $0
DATA counts<>+0x80(SB)/8, $8
DATA counts<>+0x88(SB)/8, $0
DATA counts<>+0x90(SB)/8, $8
DATA counts<>+0x98(SB)/8, $0
DATA counts<>+0xa0(SB)/8, $10
DATA counts<>+0xa8(SB)/8, $0
DATA counts<>+0xb0(SB)/8, $10
DATA counts<>+0xb8(SB)/8, $0
DATA counts<>+0xc0(SB)/8, $12
DATA counts<>+0xc8(SB)/8, $0
DATA counts<>+0xd0(SB)/8, $12
DATA counts<>+0xd8(SB)/8, $0
DATA counts<>+0xe0(SB)/8, $14
DATA counts<>+0xe8(SB)/8, $0
DATA counts<>+0xf0(SB)/8, $14
DATA counts<>+0xf8(SB)/8, $0
GLOBL counts<>(SB), RODATA|NOPTR, $256

DATA lanes2<>+0(SB)/8, $0
DATA lanes2<>+8(SB)/8, $0
DATA lanes2<>+16(SB)/8, $1
DATA lanes2<>+24(SB)/8, $0
GLOBL lanes2<>(SB), RODATA|NOPTR, $32

DATA sixteen<>+0(SB)/8, $16
DATA sixteen<>+8(SB)/8, $0
DATA sixteen<>+16(SB)/8, $16
DATA sixteen<>+24(SB)/8, $0
GLOBL sixteen<>(SB), RODATA|NOPTR, $32
