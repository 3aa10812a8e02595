//go:build !race

package circuit

// bulk is how much goes through a circuit at most.
const bulk = 64 << 20

const raceEnabled = false
