package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestBench_unknown_part(t *testing.T) {
	err := bench(t.Context(), []string{"-only", "lag,tea"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `no part "tea"; there are apply, campaign, catchup, count`) {
		t.Errorf("an unknown part: %v", err)
	}
}

func TestQuantile(t *testing.T) {
	all := []time.Duration{3, 1, 2, 5, 4}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(all, q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("the median of none is %d", got)
	}
}
