package wire

import (
	"fmt"
	"io"
	"log/slog"
)

// Whatever holds a secret prints as this under every verb of fmt, in slog and in JSON. Format
// is what covers %x, %d and %#v. The states that keep secrets in unexported fields need it as much as the
// keys: fmt prints those fields by reflection.
const redacted = "(secret)"

func redact(f fmt.State) { io.WriteString(f, redacted) }

func (PrivateKey) String() string                 { return redacted }
func (PrivateKey) Format(f fmt.State, _ rune)     { redact(f) }
func (PrivateKey) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (PrivateKey) MarshalText() ([]byte, error)   { return []byte(redacted), nil }
func (PresharedKey) String() string               { return redacted }
func (PresharedKey) Format(f fmt.State, _ rune)   { redact(f) }
func (PresharedKey) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (PresharedKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (SessionKey) String() string                 { return redacted }
func (SessionKey) Format(f fmt.State, _ rune)     { redact(f) }
func (SessionKey) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (SessionKey) MarshalText() ([]byte, error)   { return []byte(redacted), nil }

func (Local) Format(f fmt.State, _ rune)       { redact(f) }
func (*Initiation) Format(f fmt.State, _ rune) { redact(f) }
func (*Request) Format(f fmt.State, _ rune)    { redact(f) }
func (*CookieJar) Format(f fmt.State, _ rune)  { redact(f) }
func (*Cookie) Format(f fmt.State, _ rune)     { redact(f) }
