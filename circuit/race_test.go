//go:build race

package circuit

// bulk is how much goes through a circuit at most; less under the race detector, which is slow.
const bulk = 8 << 20

const raceEnabled = true
