package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// node is one value of the document: all that is left of YAML once it has been parsed.
type node struct {
	kind   kind
	line   int
	text   string  // of a scalar, as the file writes it, quotes removed
	items  []*node // of a list
	fields []field // of a mapping, in the order of the file, doubles included
}

type field struct {
	key   string
	line  int
	value *node
}

type kind uint8

const (
	kindNull kind = iota
	kindText
	kindNumber
	kindBool
	kindList
	kindMapping
)

// String names a node for errors. It does not repeat text, which may be a secret.
func (n *node) String() string {
	switch n.kind {
	case kindText:
		return "text"
	case kindNumber:
		return "the number " + n.text
	case kindBool:
		return n.text
	case kindList:
		return "a list"
	case kindMapping:
		return "a mapping"
	}
	return "nothing"
}

// flaw keeps a document from being read at all.
type flaw struct {
	line int
	msg  string
}

// parseDocument turns a file into nodes. The part of YAML it takes is that of plain settings:
// one document of mappings, lists and scalars. Anchors, tags and directives are refused before
// the parser sees them, as are shapes on which it would take quadratic time or deep recursion.
func parseDocument(data []byte) (*node, *flaw) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if f := checkBytes(data); f != nil {
		return nil, f
	}
	tokens := lexer.Tokenize(string(data))
	if f := checkTokens(tokens); f != nil {
		return nil, f
	}
	// Keys given twice are reported by section, with both lines and all other errors.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxFlaw(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, &flaw{lineOf(doc.Body), "a second document: want one document a file"}
		}
		body = doc.Body
	}
	if body == nil || body.Type() == ast.CommentType {
		return nil, &flaw{1, "the file is empty: adit help configuration shows one to begin with"}
	}
	return convert(body)
}

// checkBytes refuses what no reader of the file could see.
func checkBytes(data []byte) *flaw {
	if len(data) > maxFile {
		return &flaw{0, fmt.Sprintf("larger than %d bytes", maxFile)}
	}
	line := 1
	indent := true
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &flaw{line, "not valid UTF-8: save the file as UTF-8"}
		case r == '\n':
			line++
			indent = true
			i++
			continue
		case r == '\t' && indent:
			return &flaw{line, "a tab in the indentation: YAML wants spaces"}
		case r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029':
			return &flaw{line, fmt.Sprintf("a control character (%U): remove it", r)}
		}
		if r != ' ' && r != '\t' {
			indent = false
		}
		i += size
	}
	return nil
}

// Bounds of shape. A configuration is four levels deep and has some twenty keys a mapping.
const (
	maxDepth  = 20
	maxKeys   = 200  // in one block mapping
	maxEmpty  = 1000 // values left out, in the whole file
	maxTokens = 1 << 20
)

// checkTokens refuses features a configuration has no use for, and shapes that the parser
// cannot be trusted with: it recurses without bound, and is quadratic in the number of keys
// of a block mapping and in the number of empty values.
func checkTokens(tokens token.Tokens) *flaw {
	if len(tokens) > maxTokens {
		return &flaw{0, fmt.Sprintf("more than %d words and signs: too large for a configuration", maxTokens)}
	}
	var (
		flow    []bracket // the open ones
		empty   int
		columns []column // of the block collections around the token
		doc     documents
	)
	enter := func(tk *token.Token, col int) *flaw {
		for len(columns) > 0 && columns[len(columns)-1].at > col {
			columns = columns[:len(columns)-1]
		}
		if len(columns) == 0 || columns[len(columns)-1].at < col {
			columns = append(columns, column{at: col})
		}
		if len(columns) > maxDepth {
			return &flaw{tk.Position.Line, fmt.Sprintf("nested more than %d deep", maxDepth)}
		}
		return nil
	}
	for _, tk := range tokens {
		line := tk.Position.Line
		if !doc.take(tk.Type) {
			return &flaw{line, "a second document: want one document a file"}
		}
		switch tk.Type {
		case token.InvalidType:
			return &flaw{line, syntaxMessage(tk.Error)}
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return &flaw{line, "anchors, aliases and merge keys are not supported: write the values out"}
		case token.TagType:
			return &flaw{line, "tags (!) are not supported: put text that begins with ! in quotes"}
		case token.DirectiveType:
			return &flaw{line, "directives (%) are not supported"}
		case token.MappingKeyType:
			return &flaw{line, "keys marked with ? are not supported: want key: value"}
		case token.SequenceStartType, token.MappingStartType:
			if len(flow) == maxDepth {
				return &flaw{line, fmt.Sprintf("nested more than %d deep", maxDepth)}
			}
			flow = append(flow, bracket{mapping: tk.Type == token.MappingStartType})
		case token.SequenceEndType, token.MappingEndType, token.CollectEntryType:
			if len(flow) == 0 {
				break // an error that the parser words well
			}
			b := &flow[len(flow)-1]
			if b.mapping && b.key && !b.colon {
				return &flaw{line, "a key without a value: want {key: value}"}
			}
			b.key, b.colon = false, false
			if tk.Type != token.CollectEntryType {
				flow = flow[:len(flow)-1]
			}
		case token.SequenceEntryType:
			if f := enter(tk, tk.Position.Column); f != nil {
				return f
			}
			columns[len(columns)-1].keys = 0
			if emptyAfter(tk) {
				empty++
			}
		case token.MappingValueType:
			if emptyAfter(tk) {
				empty++
			}
			if len(flow) > 0 {
				flow[len(flow)-1].colon = true
				break
			}
			col := tk.Position.Column
			if tk.Prev != nil && tk.Prev.Position.Line == line {
				col = tk.Prev.Position.Column
			}
			if f := enter(tk, col); f != nil {
				return f
			}
			c := &columns[len(columns)-1]
			if c.keys++; c.keys > maxKeys {
				return &flaw{line, fmt.Sprintf("more than %d keys in one place", maxKeys)}
			}
		case token.CommentType:
		default:
			if len(flow) > 0 {
				flow[len(flow)-1].key = true
			}
		}
		if empty > maxEmpty {
			return &flaw{line, fmt.Sprintf("more than %d values are empty", maxEmpty)}
		}
	}
	return nil
}

// column is a block collection by the column it begins in, and how many keys it has so far.
type column struct{ at, keys int }

// bracket is an open { or [, and what its present entry has shown so far.
type bracket struct{ mapping, key, colon bool }

// documents tells one document, with its marks before and after, from several.
type documents struct {
	begun bool // by --- or content
	ended bool // by ... or a --- after content
	full  bool // has content
}

// take reports whether a token may follow what was taken before.
func (d *documents) take(t token.Type) bool {
	switch t {
	case token.CommentType, token.DirectiveType:
	case token.DocumentHeaderType:
		if d.ended || d.begun && !d.full {
			return false
		}
		d.begun, d.ended = true, d.full
	case token.DocumentEndType:
		if d.ended && !d.full {
			return false
		}
		d.ended = true
	default:
		if d.ended {
			return false
		}
		d.begun, d.full = true, true
	}
	return true
}

// emptyAfter reports whether the list entry or key that tk begins may have no value.
func emptyAfter(tk *token.Token) bool {
	next := tk.Next
	for next != nil && next.Type == token.CommentType {
		next = next.Next
	}
	if next == nil {
		return true
	}
	switch next.Type {
	case token.CollectEntryType, token.MappingEndType, token.SequenceEndType, token.MappingValueType,
		token.DocumentHeaderType, token.DocumentEndType:
		return true
	}
	if next.Position.Line == tk.Position.Line {
		return false
	}
	begin := tk
	if tk.Type == token.MappingValueType && tk.Prev != nil {
		begin = tk.Prev
	}
	col := begin.Position.Column
	if tk.Type == token.MappingValueType && next.Type == token.SequenceEntryType {
		col-- // a list may begin in the column of its key
	}
	return next.Position.Column <= col
}

// syntaxFlaw turns an error of the parser into one line. Its Error method must not be used: it
// draws the source, secrets included, and takes quadratic time to do so.
func syntaxFlaw(err error) *flaw {
	var ye yaml.Error
	if !errors.As(err, &ye) {
		return &flaw{0, "not valid YAML"}
	}
	f := &flaw{msg: syntaxMessage(ye.GetMessage())}
	if tk := ye.GetToken(); tk != nil && tk.Position != nil {
		f.line = tk.Position.Line
	}
	return f
}

// syntaxMessage puts what the parser says most often into words for people who do not know YAML.
func syntaxMessage(msg string) string {
	msg, _, _ = strings.Cut(msg, "\n")
	switch msg {
	case "non-map value is specified":
		msg = "want a key, a colon and a value here"
	case "value is not allowed in this context":
		msg = "this does not belong here: look at the indentation"
	case "mapping value is not allowed in this context":
		msg = "a second colon in one line: put text that holds a colon in quotes"
	case "',' or ']' must be specified", "sequence end token ']' not found":
		msg = "a list is not closed: a comma or ] is missing"
	case "',' or '}' must be specified", "could not find flow mapping end token '}'":
		msg = "a mapping is not closed: a comma or } is missing"
	case "could not find end character of double-quoted text":
		msg = "a quote is not closed: a \" is missing"
	case "could not find end character of single-quoted text":
		msg = "a quote is not closed: a ' is missing"
	}
	return "not valid YAML: " + oneLine(msg)
}

func lineOf(n ast.Node) int {
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 0
}

// convert copies an AST. Its depth is bounded by checkTokens.
func convert(n ast.Node) (*node, *flaw) {
	out := &node{line: lineOf(n)}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = kindNull
	case *ast.StringNode:
		out.kind, out.text = kindText, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = kindText, n.Value.Value
	case *ast.BoolNode:
		out.kind, out.text = kindBool, n.Token.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = kindNumber, n.GetToken().Value
	case *ast.SequenceNode:
		out.kind = kindList
		for _, v := range n.Values {
			item, f := convert(v)
			if f != nil {
				return nil, f
			}
			out.items = append(out.items, item)
		}
	case *ast.MappingNode:
		out.kind = kindMapping
		for _, v := range n.Values {
			if f := out.appendField(v); f != nil {
				return nil, f
			}
		}
		if len(out.fields) > 0 {
			out.line = out.fields[0].line
		}
	case *ast.MappingValueNode:
		out.kind = kindMapping
		if f := out.appendField(n); f != nil {
			return nil, f
		}
		out.line = out.fields[0].line
	default:
		return nil, &flaw{out.line, fmt.Sprintf("a %s is not supported", strings.ToLower(n.Type().String()))}
	}
	return out, nil
}

func (n *node) appendField(v *ast.MappingValueNode) *flaw {
	key, f := convert(v.Key)
	if f != nil {
		return f
	}
	if key.kind > kindBool {
		return &flaw{key.line, "a list or a mapping cannot be a key"}
	}
	val, f := convert(v.Value)
	if f != nil {
		return f
	}
	if val.kind == kindNull {
		val.line = key.line
	}
	n.fields = append(n.fields, field{key: key.text, line: key.line, value: val})
	return nil
}
