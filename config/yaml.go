package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlErrorLine finds the line in the library's errors; the rest of them may
// quote what is in the file.
var yamlErrorLine = regexp.MustCompile(`\bline (\d+):`)

// parseNode parses a file of one document; nil where it is empty.
func parseNode(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	top, err := nextDocument(dec)
	if err != nil || top == nil {
		return nil, err
	}
	more, err := nextDocument(dec)
	switch {
	case err != nil:
		return nil, err
	case more != nil && more.ShortTag() != "!!null":
		return nil, fmt.Errorf(":%d: %w: a second document, which nobody would read: want one", more.Line, ErrInvalid)
	}
	return top, nil
}

// nextDocument is nil where there is none.
func nextDocument(dec *yaml.Decoder) (*yaml.Node, error) {
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		line := 0
		if m := yamlErrorLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
		}
		return nil, fmt.Errorf("%s: %w: not well-formed YAML: quote values with special characters", lineOf(line), ErrInvalid)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

func parseYAML(data []byte) ([]entry, error) {
	top, err := parseNode(data)
	if err != nil || top == nil {
		return nil, err
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf(":%d: %w: want a mapping with the key %s", top.Line, ErrInvalid, section)
	}
	seen := map[string]bool{}
	var entries []entry
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != section {
			continue
		}
		own := resolve(top.Content[i+1])
		if own.Kind != yaml.MappingNode || seen[section] {
			return nil, fmt.Errorf(":%d: %w: want one mapping with the key %s below %s", top.Content[i].Line, ErrInvalid, urlKey, section)
		}
		seen[section] = true
		for j := 0; j+1 < len(own.Content); j += 2 {
			key, value := own.Content[j], resolve(own.Content[j+1])
			if seen["."+key.Value] {
				return nil, fmt.Errorf(":%d: %w: key %q is given twice", key.Line, ErrInvalid, key.Value)
			}
			seen["."+key.Value] = true
			if value.Kind != yaml.ScalarNode {
				value = &yaml.Node{}
			}
			entries = append(entries, entry{key.Value, value.Value, key.Line})
		}
	}
	return entries, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// What a file may hold: aliases in aliases would otherwise make much of little.
const (
	maxNodes = 1 << 20
	maxDepth = 100
)

// A converter makes JSON of YAML.
type converter struct {
	out   bytes.Buffer
	nodes int
}

func (c *converter) convert(n *yaml.Node, depth int) error {
	if c.nodes++; c.nodes > maxNodes || depth > maxDepth {
		return fmt.Errorf(":%d: %w: too deep or too large", n.Line, ErrInvalid)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return c.convert(n.Alias, depth+1)
	case yaml.MappingNode:
		return c.mapping(n, depth)
	case yaml.SequenceNode:
		c.out.WriteByte('[')
		for i, e := range n.Content {
			if i > 0 {
				c.out.WriteByte(',')
			}
			if err := c.convert(e, depth+1); err != nil {
				return err
			}
		}
		c.out.WriteByte(']')
		return nil
	}
	return c.scalar(n)
}

func (c *converter) mapping(n *yaml.Node, depth int) error {
	c.out.WriteByte('{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			return fmt.Errorf(":%d: %w: want a plain text as a key", key.Line, ErrInvalid)
		}
		if i > 0 {
			c.out.WriteByte(',')
		}
		if err := c.text(key.Value); err != nil {
			return err
		}
		c.out.WriteByte(':')
		if err := c.convert(n.Content[i+1], depth+1); err != nil {
			return err
		}
	}
	c.out.WriteByte('}')
	return nil
}

func (c *converter) text(s string) error {
	data, err := json.Marshal(s)
	c.out.Write(data)
	return err
}

func (c *converter) scalar(n *yaml.Node) error {
	switch n.ShortTag() {
	case "!!str":
		return c.text(n.Value)
	case "!!null":
		c.out.WriteString("null")
		return nil
	case "!!bool":
		var v bool
		if err := n.Decode(&v); err != nil {
			return fmt.Errorf(":%d: %w: %q: want true or false", n.Line, ErrInvalid, n.Value)
		}
		c.out.WriteString(strconv.FormatBool(v))
		return nil
	case "!!int":
		var v int64
		if err := n.Decode(&v); err != nil {
			return fmt.Errorf(":%d: %w: the integer %s is out of range: it has 64 bits and a sign", n.Line, ErrInvalid, n.Value)
		}
		c.out.WriteString(strconv.FormatInt(v, 10))
		return nil
	case "!!float":
		if !strings.ContainsAny(n.Value, ".eEnN") { // of an integer it would make one
			return fmt.Errorf(":%d: %w: the integer %s is out of range: it has 64 bits and a sign", n.Line, ErrInvalid, n.Value)
		}
		var v float64
		err := n.Decode(&v)
		text, jsonErr := json.Marshal(v)
		if err != nil || jsonErr != nil {
			return fmt.Errorf(":%d: %w: %q: want a finite number", n.Line, ErrInvalid, n.Value)
		}
		c.out.Write(text)
		if !bytes.ContainsAny(text, ".e") {
			c.out.WriteString(".0")
		}
		return nil
	case "!!timestamp":
		return fmt.Errorf(`:%d: %w: %s: quote it to make it a text, or write {$time: "2006-01-02T15:04:05Z"}`, n.Line, ErrInvalid, n.Value)
	}
	return fmt.Errorf(":%d: %w: the tag %s has no meaning here: bytes are {$bytes: base64}", n.Line, ErrInvalid, n.Tag)
}
