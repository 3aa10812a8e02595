// Package scenarios is networks in trouble, as files: each says what happens and what must come of it (docs/testnet.md).
package scenarios

import "embed"

// Files are the scenarios, a file each.
//
//go:embed *.toml
var Files embed.FS

// Long are those that take minutes of CPU, by the same names in the folder long.
//
//go:embed long/*.toml
var Long embed.FS
