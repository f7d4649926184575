package driver

// Secret is a text that is not shown where what holds it is printed: package fmt
// reads unexported fields too, and with some verbs it follows pointers. Nil is an
// empty one.
type Secret func() string

// NewSecret keeps a text.
func NewSecret(text string) Secret { return func() string { return text } }

// Text is what NewSecret was given.
func (s Secret) Text() string {
	if s == nil {
		return ""
	}
	return s()
}
