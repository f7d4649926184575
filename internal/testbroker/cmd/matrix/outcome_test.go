package main

import (
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	o, err := read(strings.NewReader(`{"Action":"start"}
{"Action":"run","Test":"TestConformance"}
{"Action":"pass","Test":"TestConformance/01_Confirmed/one"}
{"Action":"pass","Test":"TestConformance/01_Confirmed/one/part"}
{"Action":"fail","Test":"TestConformance/01_Confirmed/two"}
{"Action":"fail","Test":"TestConformance/01_Confirmed"}
{"Action":"skip","Test":"TestConformance/02_Outcomes/three"}
{"Action":"fail","Test":"TestConformance"}
{"Action":"fail"}
`), 2)
	if err != nil || o.passed != 1 || !slices.Equal(o.failed, []string{"01_Confirmed/two", "02_Outcomes/three (skipped)"}) || o.ok() {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := read(strings.NewReader("FAIL\n"), 2); err == nil {
		t.Error("what is no JSON passes")
	}
}
