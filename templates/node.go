package templates

// nodeKind says what a node does.
type nodeKind uint8

const (
	nodeText    nodeKind = iota
	nodePrint            // {{x}}
	nodeIf               // #if, #unless and the comparison helpers
	nodeEach             // #each
	nodeWith             // #with
	nodeSection          // {{#name}}: each for a list, with for a map, else if
	nodePartial          // {{> name}}
)

// A node is a piece of a compiled template.
type node struct {
	kind    nodeKind
	raw     bool   // print without escaping
	negate  bool   // nodeIf: the condition is inverted
	text    string // nodeText
	value   *expr  // what is printed, tested or walked; a partial's context, may be nil
	body    []node
	inverse []node // after {{else}}
	partial *partial
	names   []string // hash arguments of a partial
	values  []expr
}

// A partial is the body of an inline partial.
type partial struct {
	name string
	body []node
}

// exprKind says where an expr's value comes from.
type exprKind uint8

const (
	exprLiteral exprKind = iota
	exprPath
	exprCall
)

// An expr is something that has a value.
type expr struct {
	kind   exprKind
	value  Value // exprLiteral
	path   *path
	call   *call
	source string // as written
}

// base says where a path starts.
type base uint8

const (
	basePlain base = iota // x: the enclosing items, then the Vars
	baseThis              // this.x, ./x: only the innermost item
	baseRoot              // @root.x: only the Vars
	baseData              // @index, @key, @first, @last
)

// A path is a name with its compiled lookups.
type path struct {
	base    base
	up      int      // how many ../
	names   []string // segments, without brackets
	indexed bool     // the last segment is digits
	index   int
	data    dataKind
	key     string // names joined by dots: what Defaults are looked up by
	itemOf  string // key without the last index; "" if not indexed
	name    string // as reported and listed
}

// dataKind says which of a loop's own values a path is.
type dataKind uint8

const (
	dataIndex dataKind = iota
	dataKey
	dataFirst
	dataLast
)

// A call is a helper with its arguments.
type call struct {
	helper *helper
	args   []expr
	hash   []*expr // parallel to helper.hash; nil where not given
}
