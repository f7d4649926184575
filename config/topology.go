package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/polymq/polymq/routing"
)

// ReadTopology reads a topology from a file whose name ends in .yaml, .yml or
// .json. It is legal (routing.Topology.Validate); errors name the file and the
// element, and its line where it is not well-formed.
func ReadTopology(file string) (routing.Topology, error) {
	var t routing.Topology
	ext := strings.ToLower(filepath.Ext(file))
	if ext != ".yaml" && ext != ".yml" && ext != ".json" {
		return t, fmt.Errorf("config: %s: %w: the name ends in %q: want .yaml, .yml or .json", file, ErrInvalid, ext)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return t, fmt.Errorf("config: %w", err)
	}
	if ext == ".json" {
		err = json.Unmarshal(data, &t)
		if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
			err = fmt.Errorf(":%d: %w: not well-formed JSON: %w", 1+bytes.Count(data[:bad.Offset], []byte("\n")), ErrInvalid, err)
		}
	} else {
		t, err = UnmarshalTopology(data)
	}
	if err == nil {
		err = t.Validate()
	}
	if err != nil {
		sep := ": "
		if strings.HasPrefix(err.Error(), ":") { // it begins with the line
			sep = ""
		}
		return routing.Topology{}, fmt.Errorf("config: %s%s%w", file, sep, err)
	}
	return t, nil
}

// UnmarshalTopology reads a topology from YAML. JSON is encoding/json's.
func UnmarshalTopology(data []byte) (routing.Topology, error) {
	var t routing.Topology
	top, err := parseNode(data)
	if err != nil || top == nil {
		return t, err
	}
	var c converter
	if err := c.convert(top, 0); err != nil {
		return t, err
	}
	err = json.Unmarshal(c.out.Bytes(), &t)
	return t, err
}

// MarshalTopology writes a topology as YAML that UnmarshalTopology reads.
func MarshalTopology(t routing.Topology) ([]byte, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	top, err := parseNode(data) // JSON is YAML
	if err != nil {
		return nil, err
	}
	block(top)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(top); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// block takes JSON's braces and quotes away, where YAML needs none.
func block(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	for _, e := range n.Content {
		block(e)
	}
}
