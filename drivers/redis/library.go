package redis

import (
	"context"
	"embed"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// The library's name carries the version of what is stored, its revision that
// of the code: a newer revision replaces an older one and serves its clients.
const (
	libraryName     = "polymq1"
	libraryRevision = 11
)

//go:embed library/*.lua
var libraryFiles embed.FS

// libraryParts is the order of the files: each needs what is before it only.
var libraryParts = []string{"base", "topology", "rules", "group", "append", "fetch", "expiry", "queue", "register"}

// Functions of the topology.
const (
	fnLoad   = libraryName + "_load"
	fnApply  = libraryName + "_apply"
	fnRemove = libraryName + "_remove" // as apply, also where the memory is full
	fnRenew  = libraryName + "_renew"
	fnLeases = libraryName + "_leases"
	fnLead   = libraryName + "_lead"
)

// functions are the names of those that work on a queue.
type functions struct {
	create, append, join, extend, settle, tend, fetch, rename, leave, withdraw string
	inspect, usage, touch, sweep, drop, purge, delete                          string
}

// Queues with rules have functions of their own, so that the rules cost others
// nothing. A fetch is all that these read with.
var (
	plainFunctions = functionsOf(libraryName + "_")
	rulesFunctions = functionsOf(libraryName + "_rules_")
)

func functionsOf(prefix string) *functions {
	return &functions{
		create: prefix + "create", append: prefix + "append", join: prefix + "join", extend: prefix + "extend",
		settle: prefix + "settle", tend: prefix + "tend", fetch: prefix + "fetch", rename: prefix + "rename",
		leave: prefix + "leave", withdraw: prefix + "withdraw", inspect: prefix + "inspect", usage: prefix + "usage",
		touch: prefix + "touch", sweep: prefix + "sweep", drop: prefix + "drop", purge: prefix + "purge", delete: prefix + "delete",
	}
}

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
	var b strings.Builder
	for _, part := range libraryParts {
		text, err := libraryFiles.ReadFile("library/" + part + ".lua")
		if err != nil {
			panic(err) // the file is embedded
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	return strings.Replace(b.String(), "@REVISION@", strconv.Itoa(libraryRevision), 1)
}
