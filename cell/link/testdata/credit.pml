/*
 * Credit and a circuit (spec/flow.md, sections 3 and 7): they never come to a stop.
 *
 * A client, a relay and an exit, joined by two links. Cells and CREDIT cells share each direction of a link, in order. Each
 * end sends ASKS requests to the other and owes an answer to each it gets; requests and answers need credit. The relay
 * passes them on: a cell it queued has left when it was written to the next link.
 *
 * INFORCE is how many cells a window grants, as little as 1; SIZE is the window's size, more than that if the budget is
 * short. Checked in every state: if nothing can move, both ends have all their answers; no more is queued or on its way
 * than was granted.
 *
 * Mistakes that must be found:
 *   -DWAITS   the exit takes nothing while an answer it owes has not gone
 *   -DOFSIZE  credit returns when half of the size is owed, not half of what is in force
 */
#ifndef INFORCE
#define INFORCE 1
#endif
#ifndef SIZE
#define SIZE 4
#endif
#ifndef ASKS
#define ASKS 2
#endif
#ifdef OFSIZE
#define DUE ((SIZE + 1) / 2)
#else
#define DUE ((INFORCE + 1) / 2)
#endif

mtype = { ask, answer, credit };

/* Wires 0 and 1 lead up, from the client to the relay and from there to the exit; 2 and 3 lead down, from the exit to the
 * relay and from there to the client. Credit for wire i returns on wire 3 - i. */
chan wire[4] = [2 * INFORCE + 1] of { mtype, byte };

byte may[4];    /* cells that the sender on a wire has credit for */
byte owed[4];   /* cells that came by a wire and have left, not granted again */
byte asked[2], owes[2], answered[2]; /* of the client and of the exit */

#define DONE (answered[0] == ASKS && answered[1] == ASKS)

inline put(i, what) {
	assert(may[i] > 0 && nfull(wire[i]));
	may[i]--;
	wire[i] ! what(1)
}

inline grant(i) {
	assert(nfull(wire[3 - i]));
	wire[3 - i] ! credit(owed[i]);
	owed[i] = 0
}

/* An end: who 0 is the client, 1 the exit; it sends on wire out, and what comes to it comes by wire in. */
proctype end(byte who; byte out; byte in) {
	byte n;
	do
	:: atomic { asked[who] < ASKS && may[out] > 0 -> put(out, ask); asked[who]++ }
	:: atomic { owes[who] > 0 && may[out] > 0 -> put(out, answer); owes[who]-- }
	:: atomic { owed[in] >= DUE -> grant(in) }
#ifdef WAITS
	:: atomic { (who == 0 || owes[who] == 0) && nempty(wire[in]) ->
#else
	:: atomic { nempty(wire[in]) ->
#endif
		if
		:: wire[in] ? ask(_) -> owes[who]++; owed[in]++
		:: wire[in] ? answer(_) -> answered[who]++; owed[in]++
		:: wire[in] ? credit(n) -> may[out] = may[out] + n; assert(may[out] <= INFORCE); n = 0
		fi }
	:: DONE -> break
	od
}

/* What waits in the relay, in order. */
chan queue[2] = [INFORCE] of { mtype };

/* One direction of the relay: from wire in to wire out. It also takes the credit that comes by wire in, which is for
 * wire 3 - in. */
proctype pass(byte q; byte in; byte out) {
	byte n;
	mtype m;
	do
	:: atomic { nempty(wire[in]) ->
		if
		:: wire[in] ? [credit(_)] -> wire[in] ? credit(n); may[3 - in] = may[3 - in] + n; assert(may[3 - in] <= INFORCE); n = 0
		:: else -> wire[in] ? m(_); assert(nfull(queue[q])); queue[q] ! m; m = 0
		fi }
	:: atomic { nempty(queue[q]) && may[out] > 0 -> queue[q] ? m; put(out, m); owed[in]++; m = 0 }
	:: atomic { owed[in] >= DUE -> grant(in) }
	:: DONE -> break
	od
}

init {
	atomic {
		may[0] = INFORCE; may[1] = INFORCE; may[2] = INFORCE; may[3] = INFORCE;
		run end(0, 0, 3);
		run end(1, 2, 1);
		run pass(0, 0, 1);
		run pass(1, 2, 3)
	}
}
