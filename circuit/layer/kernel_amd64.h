// What the amd64 kernels share. The algebra, once for all of them:
//
// Field. A block is a polynomial over GF(2), bit i of its little-endian number
// the coefficient of x^i, modulo p = x^128 + x^127 + x^126 + x^121 + 1; the
// product is a·b·x^-128 (RFC 8452, section 3).
//
// Product. VPCLMULQDQ multiplies 64 by 64 bits. With a = a1·x^64 + a0 and b the
// same, Karatsuba takes three of them:
//
//	lo = a0·b0    hi = a1·b1    mid = (a0+a1)·(b0+b1)
//	a·b = hi·x^128 + (mid + lo + hi)·x^64 + lo
//
// Sums of products are added up as lo, hi and mid and put together once.
//
// Reduction. p = x^128 + q·x^64 + 1 with q = x^63 + x^62 + x^57 (0xc2 << 56), so
// adding p times the lowest 64 bits w of a number clears them, and adds w·q to
// the 128 bits above them and w to the upper half of these. Of a product whose
// 64-bit words are w3:w2:w1:w0, with lo in w1:w0, mid (all of the middle) in
// w2:w1 and hi in w3:w2, the first time makes
//
//	w2:w1 = mid + swap(lo) + w0·q
//
// for swapping lo's halves brings lo's own part of w1 there and w0 to w2. The
// second time makes w3:w2 = hi + swap(w2:w1) + w1·q, the product over x^128.
//
// Hash. POLYVAL_h of blocks x1 … x8 that follow on a sum r is
//
//	(r + x1)·h^8 + x2·h^7 + … + x8·h
//
// with one reduction for the eight. Only r waits for the reduction before, so
// the product that takes it comes last.
//
// Tweak. The hash runs over T' | AD | X_R. T'·h is the first r. The n-15 bytes
// from the last byte of the tag on are hashed as if AD stood in its place: what
// AD differs from it by is added to r, to which the first block is added. (AD is
// not stored there, for a load of more than a byte that was just stored waits.)
//
// Keystream. The first counter block ends in so many zero bits that block i, of
// the 256 that a body takes at most, is the first with i added to its last byte,
// without a carry.
//
// Last bytes. A last block of r < 16 bytes is the load of the 16 bytes that end
// with it, of which VPSHUFB, by a mask out of a sliding window, brings the r to
// where they belong and makes the rest zero; a body has 33 bytes and more, so
// that such a load never begins before it. The last store overlaps likewise.
// Branches and addresses depend on lengths alone.
//
// Runs. ENC's keystream begins where its hash has ended. But the tag that ends the
// hash of one body and begins its keystream is also T' for the next body, so that
// the hash of that one runs beside this keystream; products and rounds of AES use
// different parts of the machine. What is left of a keystream after the last whole
// groups of both comes after the left half of the next body, which it need not wait
// for and which waits for itself only. A run ends early at the body whose tag is
// the nonce, as the keys move on there.
//
// Registers, the same in all kernels (X, Y or Z is the width of the kernel):
//
//	R8  keys (the struct; offsets from go_asm.h)     R9  T'
//	R11 body                                         R12 n
//	DX  next byte to hash       DI  next byte to add keystream to
//	CX  bytes left of either    R10 next power       AX  scratch
//	SI  bytes left of keystream while hashing        R13 from body to body
//	BX  bodies left
//	      while hashing                    while adding keystream
//	0     a block                          0-7  keystream
//	1-3   lo, hi and mid of the sum        8    round key
//	4-6   scratch of products              9    counter block, whitened
//	7     r, then the tweak m              12   what the counter gains
//	8-11  halves of powers, added (VAES)   13   counter block
//	14    left half, all the time          15   p's constant, 1 | q << 64
//
//	      while doing both, of 128 and of 256 bits
//	0-7   keystream                        8    a block
//	9-11  lo, hi and mid of the sum        12   a power, then its halves, added
//	13    counter block                    14   round key, scratch of products
//	15    r
//
// The kernels use VEX encodings only, and those with Y registers end in
// VZEROUPPER.

#define BLOCKS(n) (n*16)

// MUL adds the product D·POWER to LO, HI, MID. SUM is the sum of the halves of the
// power, in its lower half at the least. It changes D and T.
#define MUL(POWER, SUM, D, LO, HI, MID, T) \
	VPCLMULQDQ $0x00, POWER, D, T \
	VPXOR      T, LO, LO          \
	VPCLMULQDQ $0x11, POWER, D, T \
	VPXOR      T, HI, HI          \
	VPSHUFD    $0x4e, D, T        \
	VPXOR      T, D, D            \
	VPCLMULQDQ $0x00, SUM, D, T   \
	VPXOR      T, MID, MID

// REDUCE gives OUT, the element that LO, HI and MID are. It changes all of them.
#define REDUCE(FIELD, LO, HI, MID, T, OUT) \
	VPXOR      LO, MID, MID        \
	VPXOR      HI, MID, MID        \
	VPCLMULQDQ $0x10, FIELD, LO, T \
	VPSHUFD    $0x4e, LO, LO       \
	VPXOR      LO, MID, MID        \
	VPXOR      T, MID, MID         \
	VPCLMULQDQ $0x10, FIELD, MID, T \
	VPSHUFD    $0x4e, MID, MID     \
	VPXOR      MID, HI, HI         \
	VPXOR      T, HI, OUT

// PRODUCT gives OUT = A·B. It changes X0 to X5.
#define PRODUCT(A, B, OUT) \
	VMOVDQU    A, X0              \
	VMOVDQU    B, X4              \
	VPCLMULQDQ $0x00, X4, X0, X1  \
	VPCLMULQDQ $0x11, X4, X0, X2  \
	VPSHUFD    $0x4e, X0, X3      \
	VPSHUFD    $0x4e, X4, X5      \
	VPXOR      X0, X3, X3         \
	VPXOR      X4, X5, X5         \
	VPCLMULQDQ $0x00, X5, X3, X3  \
	REDUCE(X15, X1, X2, X3, X5, OUT)

// FIRSTCOUNTER gives X13, the first counter block that the tag in TAG selects.
#define FIRSTCOUNTER(TAG) \
	PRODUCT(TAG, keys_b(R8), X13)  \
	VPAND   keys_mask(R8), X13, X13

// AESBLOCK does the rounds OP and LAST of one block with the round keys at KEYS.
#define AESBLOCK(OP, LAST, KEYS, X) \
	VPXOR KEYS+BLOCKS(0)(R8), X, X  \
	OP    KEYS+BLOCKS(1)(R8), X, X  \
	OP    KEYS+BLOCKS(2)(R8), X, X  \
	OP    KEYS+BLOCKS(3)(R8), X, X  \
	OP    KEYS+BLOCKS(4)(R8), X, X  \
	OP    KEYS+BLOCKS(5)(R8), X, X  \
	OP    KEYS+BLOCKS(6)(R8), X, X  \
	OP    KEYS+BLOCKS(7)(R8), X, X  \
	OP    KEYS+BLOCKS(8)(R8), X, X  \
	OP    KEYS+BLOCKS(9)(R8), X, X  \
	LAST  KEYS+BLOCKS(10)(R8), X, X

// ROUND4 and ROUND8 do one round of four or eight registers with round key I of
// K; LOAD brings it to all lanes of RK.
#define ROUND4(OP, LOAD, I, RK, A, B, C, D) \
	LOAD keys_k+BLOCKS(I)(R8), RK \
	OP   RK, A, A \
	OP   RK, B, B \
	OP   RK, C, C \
	OP   RK, D, D

#define ROUND8(OP, LOAD, I, RK, A, B, C, D, E, F, G, H) \
	ROUND4(OP, LOAD, I, RK, A, B, C, D) \
	OP   RK, E, E \
	OP   RK, F, F \
	OP   RK, G, G \
	OP   RK, H, H

// KEYSTREAM4 and KEYSTREAM8 are the ten rounds after the whitening.
#define KEYSTREAM4(LOAD, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 1, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 2, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 3, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 4, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 5, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 6, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 7, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 8, RK, A, B, C, D) \
	ROUND4(VAESENC, LOAD, 9, RK, A, B, C, D) \
	ROUND4(VAESENCLAST, LOAD, 10, RK, A, B, C, D)

#define KEYSTREAM8(LOAD, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 1, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 2, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 3, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 4, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 5, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 6, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 7, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 8, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENC, LOAD, 9, RK, A, B, C, D, E, F, G, H) \
	ROUND8(VAESENCLAST, LOAD, 10, RK, A, B, C, D, E, F, G, H)

// WHITEN starts the counter block that is N blocks after the one in BASE.
#define WHITEN(N, BASE, A) \
	VPXOR count<>+BLOCKS(N)(SB), BASE, A

// XORBODY adds a register of keystream to the body at OFF.
#define XORBODY(OFF, A) \
	VPXOR   OFF(DI), A, A  \
	VMOVDQU A, OFF(DI)

// ARGUMENTS loads those that encipher and decipher have in common:
// (s *keys, prev, … *[tagSize]byte, body *byte, n int, …, ad byte).
#define ARGUMENTS \
	MOVQ    s+0(FP), R8      \
	MOVQ    prev+8(FP), R9   \
	MOVQ    body+24(FP), R11 \
	MOVQ    n+32(FP), R12    \
	VMOVDQU field<>(SB), X15

// BEGINTWEAK gives X7, the r that the hash of T' | AD | X_R begins with, and sets
// out DX and CX for what follows on it. OFF is where the body is from R11 on.
#define BEGINTWEAK(AD, OFF) \
	PRODUCT((R9), keys_ku+BLOCKS(7)(R8), X7) \
	LEAQ    15(R11)(OFF), DX \
	LEAQ    -15(R12), CX     \
	MOVBLZX AD, AX           \
	XORB    (DX), AX         \
	VMOVD   AX, X0           \
	VPXOR   X0, X7, X7

// LEFT puts the left half X14, through AES under KB between two additions of
// the tweak, into X0.
#define LEFT(OP, LAST) \
	VPXOR X7, X14, X0                \
	AESBLOCK(OP, LAST, keys_kb, X0)  \
	VPXOR X7, X0, X0

// ENCIPHER is the body of that function, which works on a run. HASH and STREAM
// are the kernel's routines for one or the other, BOTH that for both at once.
#define ENCIPHER(HASH, STREAM, BOTH) \
	ARGUMENTS                        \
	MOVQ    stride+40(FP), R13       \
	MOVQ    count+48(FP), BX         \
	XORL    AX, AX                   \
	BEGINTWEAK(ad+56(FP), AX*1)      \
	XORL    SI, SI                   \
	CALL    HASH<>(SB)               \
	                                 \
next:                                \
	VMOVDQU (R11), X14               \
	LEFT(VAESENC, VAESENCLAST)       \
	VMOVDQU X0, (R11)                \
	VMOVDQU X0, (R9)                 \
	PRODUCT(X0, keys_b(R8), X10)     \
	VPAND   keys_mask(R8), X10, X10  \
	MOVQ    SI, CX                   \
	TESTQ   CX, CX                   \
	JEQ     begin                    \
	CALL    STREAM<>(SB)             \
	                                 \
begin:                               \
	VMOVDQU X10, X13                 \
	LEAQ    16(R11), DI              \
	LEAQ    -16(R12), SI             \
	DECQ    BX                       \
	JEQ     last                     \
	MOVQ    nonce+16(FP), AX         \
	VMOVDQU (R9), X0                 \
	VPXOR   (AX), X0, X0             \
	VPTEST  X0, X0                   \
	JEQ     last                     \
	BEGINTWEAK(ad+56(FP), R13*1)     \
	CALL    BOTH<>(SB)               \
	ADDQ    R13, R11                 \
	JMP     next                     \
	                                 \
last:                                \
	MOVQ    SI, CX                   \
	CALL    STREAM<>(SB)             \
	MOVQ    count+48(FP), AX         \
	SUBQ    BX, AX                   \
	MOVQ    AX, done+64(FP)

// DECIPHER is the body of that function, which works on one body.
#define DECIPHER(HASH, STREAM) \
	ARGUMENTS                   \
	VMOVDQU (R11), X14          \
	FIRSTCOUNTER(X14)           \
	LEAQ    16(R11), DI         \
	LEAQ    -16(R12), CX        \
	CALL    STREAM<>(SB)        \
	XORL    AX, AX              \
	BEGINTWEAK(ad+40(FP), AX*1) \
	CALL    HASH<>(SB)          \
	LEFT(VAESDEC, VAESDECLAST)  \
	VMOVDQU X0, (R11)           \
	VMOVDQU X14, (R9)

// 1 | q << 64, twice
DATA field<>+0(SB)/8, $1
DATA field<>+8(SB)/8, $0xc200000000000000
DATA field<>+16(SB)/8, $1
DATA field<>+24(SB)/8, $0xc200000000000000
GLOBL field<>(SB), RODATA|NOPTR, $32

// The sliding window of VPSHUFB masks, where 0x80 makes a zero: the 16 bytes at
// window + r move the first r bytes of a register to its end, those at
// window + 32 - r the last r to its beginning.
DATA window<>+0(SB)/8, $0x8080808080808080
DATA window<>+8(SB)/8, $0x8080808080808080
DATA window<>+16(SB)/8, $0x0706050403020100
DATA window<>+24(SB)/8, $0x0f0e0d0c0b0a0908
DATA window<>+32(SB)/8, $0x8080808080808080
DATA window<>+40(SB)/8, $0x8080808080808080
GLOBL window<>(SB), RODATA|NOPTR, $48

// Block i has i in its last byte, for i from 0 to 16.
DATA count<>+0x00(SB)/8, $0
DATA count<>+0x08(SB)/8, $0
DATA count<>+0x10(SB)/8, $0
DATA count<>+0x18(SB)/8, $0x0100000000000000
DATA count<>+0x20(SB)/8, $0
DATA count<>+0x28(SB)/8, $0x0200000000000000
DATA count<>+0x30(SB)/8, $0
DATA count<>+0x38(SB)/8, $0x0300000000000000
DATA count<>+0x40(SB)/8, $0
DATA count<>+0x48(SB)/8, $0x0400000000000000
DATA count<>+0x50(SB)/8, $0
DATA count<>+0x58(SB)/8, $0x0500000000000000
DATA count<>+0x60(SB)/8, $0
DATA count<>+0x68(SB)/8, $0x0600000000000000
DATA count<>+0x70(SB)/8, $0
DATA count<>+0x78(SB)/8, $0x0700000000000000
DATA count<>+0x80(SB)/8, $0
DATA count<>+0x88(SB)/8, $0x0800000000000000
DATA count<>+0x90(SB)/8, $0
DATA count<>+0x98(SB)/8, $0x0900000000000000
DATA count<>+0xa0(SB)/8, $0
DATA count<>+0xa8(SB)/8, $0x0a00000000000000
DATA count<>+0xb0(SB)/8, $0
DATA count<>+0xb8(SB)/8, $0x0b00000000000000
DATA count<>+0xc0(SB)/8, $0
DATA count<>+0xc8(SB)/8, $0x0c00000000000000
DATA count<>+0xd0(SB)/8, $0
DATA count<>+0xd8(SB)/8, $0x0d00000000000000
DATA count<>+0xe0(SB)/8, $0
DATA count<>+0xe8(SB)/8, $0x0e00000000000000
DATA count<>+0xf0(SB)/8, $0
DATA count<>+0xf8(SB)/8, $0x0f00000000000000
DATA count<>+0x100(SB)/8, $0
DATA count<>+0x108(SB)/8, $0x1000000000000000
DATA count<>+0x110(SB)/8, $0
DATA count<>+0x118(SB)/8, $0x1000000000000000
GLOBL count<>(SB), RODATA|NOPTR, $288
