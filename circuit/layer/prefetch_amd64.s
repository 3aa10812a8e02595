//go:build !purego

#include "textflag.h"
#include "go_asm.h"

// func prefetch(l *Layer)
//
// The last byte may be in a line of its own where a Layer does not begin with a
// line.
TEXT ·prefetch(SB), NOSPLIT, $0-8
	MOVQ        l+0(FP), AX
	PREFETCHT0  0(AX)
	PREFETCHT0  64(AX)
	PREFETCHT0  128(AX)
	PREFETCHT0  192(AX)
	PREFETCHT0  256(AX)
	PREFETCHT0  320(AX)
	PREFETCHT0  384(AX)
	PREFETCHT0  448(AX)
	PREFETCHT0  512(AX)
	PREFETCHT0  576(AX)
	PREFETCHT0  640(AX)
	PREFETCHT0  (Layer__size-1)(AX)
	RET
