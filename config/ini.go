package config

import (
	"fmt"
	"strings"

	"gopkg.in/ini.v1"
)

// iniOptions take a value as it stands: a URL may hold # and ;, and a \ is none
// to go on in the next line.
var iniOptions = ini.LoadOptions{IgnoreInlineComment: true, IgnoreContinuation: true, AllowShadows: true, AllowDuplicateShadowValues: true}

func parseINI(data []byte) ([]entry, error) {
	f, err := ini.LoadSources(iniOptions, data)
	if err != nil {
		// The library's error quotes the line, which may hold a password.
		return nil, fmt.Errorf("%s: %w: not an INI file: want [%s] and below it %s = scheme://…", lineOf(badLine(data)), ErrInvalid, section, urlKey)
	}
	var entries []entry
	if !f.HasSection(section) {
		return nil, nil
	}
	for _, key := range f.Section(section).Keys() {
		line := iniLine(data, key.Name())
		// Value is as it is written: String would put in the values of others for %(name)s.
		if values := key.ValueWithShadows(); len(values) > 1 {
			return nil, fmt.Errorf(":%d: %w: key %q is given twice", line, ErrInvalid, key.Name())
		}
		entries = append(entries, entry{key.Name(), key.Value(), line})
	}
	return entries, nil
}

func lineOf(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprint(":", line)
}

// iniLine is the line of a key in the section, which the library does not tell;
// 0 where it is not found.
func iniLine(data []byte, key string) int {
	in := ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			name, _, _ = strings.Cut(name, "]")
			in = strings.TrimSpace(name)
		} else if at := strings.IndexAny(line, "=:"); at >= 0 && in == section && strings.Trim(strings.TrimSpace(line[:at]), "\"`") == key {
			return i + 1
		}
	}
	return 0
}

// badLine is the first line that is neither a comment, a section nor a key.
func badLine(data []byte) int {
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && line[0] != ';' && !(line[0] == '[' && strings.Contains(line, "]")) && !strings.ContainsAny(line, "=:") {
			return i + 1
		}
	}
	return 0
}
