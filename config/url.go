package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

const (
	section = "polymq"
	urlKey  = "url"
)

// ErrInvalid is wrapped by errors about what a file holds.
var ErrInvalid = errors.New("invalid")

// URL is the broker's URL: the environment variable POLYMQ_URL where it is set,
// else the one in the file, whose name ends in .ini, .yaml or .yml.
//
// A file that is there must be right also where the variable is set, so that a
// mistake is found before the day that it is needed; one that is missing is an
// error, which wraps fs.ErrNotExist, only where the variable is not set. Errors
// name the file, the line and the key, and never hold a value.
func URL(file string) (string, error) {
	env := polymq.URLFromEnv("")
	url, err := read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && env != "":
		return env, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: set the environment variable POLYMQ_URL, or write the file", err)
	case err != nil:
		return "", err
	case env != "":
		return env, nil
	}
	return url, nil
}

// entry is a key of the section polymq, and where it stands.
type entry struct {
	key, value string
	line       int
}

func read(file string) (string, error) {
	parse := parseINI
	switch ext := strings.ToLower(filepath.Ext(file)); ext {
	case ".ini":
	case ".yaml", ".yml":
		parse = parseYAML
	default:
		return "", fmt.Errorf("config: %s: %w: the name ends in %q: want .ini, .yaml or .yml", file, ErrInvalid, ext)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("config: %w", err)
	}
	entries, err := parse(data)
	if err != nil {
		return "", fmt.Errorf("config: %s%w", file, err)
	}
	for _, e := range entries {
		if e.key != urlKey {
			return "", fmt.Errorf("config: %s:%d: %w: unknown key %q: the section %s has %s", file, e.line, ErrInvalid, e.key, section, urlKey)
		}
	}
	i := slices.IndexFunc(entries, func(e entry) bool { return e.value != "" })
	if i < 0 {
		return "", fmt.Errorf("config: %s: %w: no key %s in the section %s: want %[4]s: {%[3]s: scheme://…} in YAML, [%[4]s] and %[3]s = scheme://… in an INI file", file, ErrInvalid, urlKey, section)
	}
	if _, err := driver.ParseURL(entries[i].value); err != nil {
		return "", fmt.Errorf("config: %s:%d: %s: %w: %w", file, entries[i].line, urlKey, ErrInvalid, err)
	}
	return entries[i].value, nil
}
