/* Who signs what in one period (spec/voting.md, sections 8 and 9). Two headers can be computed from the votes: which an
 * honest authority comes to, links and liars decide, and after a crash it may come to the other. It saves what it signs
 * before anybody sees it, and after a restart sends the same again. The dishonest sign both. Never have both T signatures.
 *
 * With FORGETS a signature is sent before it is saved. */
#ifndef N
#define N 5
#endif
#ifndef BAD
#define BAD 1
#endif
#ifndef T
#define T ((N + (N - 1) / 3) / 2 + 1)
#endif

#ifndef CRASHES
#define CRASHES 1 /* of each honest authority */
#endif

byte signatures[3]; /* that somebody has seen, over header 1 and over header 2 */

inline tell(h) {
	atomic {
		signatures[h]++;
		assert(signatures[1] < T || signatures[2] < T)
	}
}

active [N - BAD] proctype honest() {
	byte disk = 0;  /* the header whose signature is there; 0: none */
	byte comes = 0; /* the header that this life comes to */
	bool told[3];
	byte crashes = 0;
again:
	if
	:: comes = 1
	:: comes = 2
	fi;
	if
	:: disk != 0 -> comes = disk
	:: disk == 0
	fi;
#ifdef FORGETS
	if
	:: !told[comes] -> told[comes] = true; tell(comes)
	:: told[comes]
	fi;
	if
	:: crashes < CRASHES -> crashes++; goto again
	:: true
	fi;
	disk = comes
#else
	if
	:: crashes < CRASHES -> crashes++; goto again /* before the write */
	:: true
	fi;
	disk = comes;
	if
	:: crashes < CRASHES -> crashes++; goto again /* after it, before it is sent */
	:: true
	fi;
	if
	:: !told[disk] -> told[disk] = true; tell(disk)
	:: told[disk]
	fi;
	if
	:: crashes < CRASHES -> crashes++; goto again /* after it was sent */
	:: true
	fi
#endif
}

#if BAD > 0
active [BAD] proctype dishonest() {
	tell(1);
	tell(2)
}
#endif
