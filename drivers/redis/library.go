package redis

import (
	"context"
	_ "embed"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// The library's name carries the version of what is stored, its revision that
// of the code: a newer revision replaces an older one and serves its clients.
const (
	libraryName     = "polymq1"
	libraryRevision = 3
)

//go:embed library.lua
var libraryCode string

// function names.
const (
	fnLoad    = libraryName + "_load"
	fnApply   = libraryName + "_apply"
	fnRenew   = libraryName + "_renew"
	fnLeases  = libraryName + "_leases"
	fnCreate  = libraryName + "_create"
	fnAppend  = libraryName + "_append"
	fnJoin    = libraryName + "_join"
	fnExtend  = libraryName + "_extend"
	fnSettle  = libraryName + "_settle"
	fnTend    = libraryName + "_tend"
	fnFetch   = libraryName + "_fetch"
	fnRename  = libraryName + "_rename"
	fnLeave   = libraryName + "_leave"
	fnInspect = libraryName + "_inspect"
	fnPurge   = libraryName + "_purge"
	fnDelete  = libraryName + "_delete"
)

// loadLibrary loads the library where it is missing or older.
func loadLibrary(ctx context.Context, c *goredis.Client) error {
	have, err := c.Do(ctx, "FCALL", libraryName+"_revision", "0").Int()
	switch {
	case err == nil && have >= libraryRevision:
		return nil
	case err != nil && !noFunction(reply(err)):
		return err
	}
	err = c.FunctionLoadReplace(ctx, code()).Err()
	if err != nil && strings.Contains(err.Error(), "already exists") {
		return nil
	}
	return err
}

// code is the library with its revision filled in.
func code() string {
	return strings.Replace(libraryCode, "@REVISION@", strconv.Itoa(libraryRevision), 1)
}
