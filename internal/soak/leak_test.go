package main

import (
	"testing"

	"github.com/polymq/polymq/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
