//go:build !linux

package bench

import (
	"errors"
	"time"
)

func cpuTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

func memory(int) (now, peak float64, err error) { return 0, 0, errors.ErrUnsupported }

func cpuModel() string { return "" }
