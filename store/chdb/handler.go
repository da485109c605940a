package chdb

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
)

// Access says who may use a [Handler] and for what.
type Access struct {
	User     string // checked only with a password
	Password string // empty: anyone who reaches the listener
	ReadOnly bool   // only SELECT on the engine's own database and system

	// Reader says what the sender of a user and password may read; nil: whoever
	// is let in reads everything. Its error is what the client is told.
	Reader func(ctx context.Context, user, password, from string) (Reader, error)

	// What a client may take to send a request's head (10 s when zero) and all
	// of it (no limit when zero; an insert that says max_execution_time has that
	// long).
	Header, Body time.Duration
}

// Reader is what a client of a read-only port may read.
type Reader struct {
	// Table decides about a table of the engine's own database. nil: all of them,
	// and what the engine says of itself; else of system nothing but one and
	// numbers.
	Table func(name string) bool
	// Denied is told what the reader was refused; nil: nobody is told.
	Denied func(reason string)
}

// maxStatement bounds the text of a statement; insert data is not part of it.
const maxStatement = 16 << 20

// Handler speaks the ClickHouse HTTP interface: statements in the URL or the
// body, settings and param_ values in the URL, data in the body, errors with
// the engine's code. clickhouse-go with Protocol HTTP works on it unchanged.
// Not there: sessions, external tables, progress headers.
func (db *DB) Handler(a Access) http.Handler {
	s := &server{db: db, access: a, guard: newGuard(db)}
	return http.HandlerFunc(s.serve)
}

type server struct {
	db     *DB
	access Access
	guard  *guard
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	reader, err := s.access.admit(r)
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="ClickHouse"`)
		fail(w, http.StatusUnauthorized, &Error{Code: 516, Message: "Code: 516. DB::Exception: Authentication failed: " + err.Error() + ". (AUTHENTICATION_FAILED)"})
		return
	}
	if r.URL.Path == "/ping" || (r.Method == http.MethodGet && r.URL.RawQuery == "") {
		io.WriteString(w, "Ok.\n")
		return
	}
	out := &answer{w: w}
	err = s.answer(r, reader, out)
	if err == nil {
		err = out.close()
	}
	if err != nil {
		out.fail(err)
	}
}

// admit finds out who sends a request.
func (a Access) admit(r *http.Request) (Reader, error) {
	user, pass, ok := r.BasicAuth()
	if !ok {
		user, pass = r.Header.Get("X-ClickHouse-User"), r.Header.Get("X-ClickHouse-Key")
	}
	if a.Reader != nil {
		q := r.URL.Query()
		return a.Reader(r.Context(), first(user, q.Get("user")), first(pass, q.Get("password")), r.RemoteAddr)
	}
	if a.Password == "" || same(user, a.User)&same(pass, a.Password) == 1 {
		return Reader{}, nil
	}
	return Reader{}, errors.New("password is incorrect, or there is no user with such name")
}

// same compares digests, so that the time taken says nothing about the
// password's length or beginning.
func same(got, want string) int {
	g, w := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(g[:], w[:])
}

// request is a parsed HTTP request.
type request struct {
	Statement
	database string
	format   string
	readOnly bool
	data     io.Reader // insert data; nil for other statements
	until    time.Time // when the statement ends at the latest; zero: whenever
	insertAs string    // format of data
}

func (s *server) answer(r *http.Request, reader Reader, out *answer) error {
	req, err := parseRequest(r, out)
	if err != nil {
		return err
	}
	if revision, ok := helloRevision(r, req.SQL); ok {
		return out.hello(revision, s.db.Version())
	}
	if s.access.ReadOnly {
		err := s.guard.query(r.Context(), reader, req, out.write)
		var e *Error
		if errors.As(err, &e) && statusOf(e.Code) == http.StatusForbidden && reader.Denied != nil {
			reader.Denied(strings.TrimPrefix(e.Message, fmt.Sprintf("Code: %d. DB::Exception: ", e.Code)))
		}
		return err
	}
	if req.data != nil {
		return s.insert(r.Context(), req, out)
	}
	return s.db.withIn(r.Context(), req.database, req.Settings, func(h *handle) error {
		if req.readOnly && h.classify(req.SQL).Class != ReadOnly {
			return ParseError("Code: 164. DB::Exception: Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries. (READONLY)")
		}
		return h.query(r.Context(), req.Statement, req.format, out.write)
	})
}

func (s *server) insert(ctx context.Context, req *request, out *answer) error {
	if !req.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, req.until)
		defer cancel()
	}
	var rows uint64
	err := s.db.withIn(ctx, req.database, req.Settings, func(h *handle) (err error) {
		rows, err = h.insert(ctx, req.SQL, req.insertAs, func(w io.Writer) error {
			_, err := io.CopyBuffer(w, struct{ io.Reader }{req.data}, make([]byte, 256<<10))
			return err
		})
		return err
	})
	out.w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"written_rows":"%d"}`, rows))
	return err
}

// reserved URL parameters are the protocol's own; every other one is a
// setting.
var reserved = regexp.MustCompile(`^(query|database|default_format|client_protocol_version|query_id|session_\w+|user|password|quota_key|role|compress|decompress|network_(zstd_)?compression_\w+|enable_http_compression|buffer_size|wait_end_of_query|stacktrace|close_session|send_progress_in_http_headers|http_\w+|param_.*)$`)

// insertFormat finds the FORMAT clause that ends an INSERT whose data comes
// behind the statement.
var insertFormat = regexp.MustCompile(`(?is)^(\s*INSERT\s.*?)\s+FORMAT\s+(\w+)\s*;?\s*$`)

func parseRequest(r *http.Request, out *answer) (*request, error) {
	q := r.URL.Query()
	out.prepare(r, q)
	req := &request{
		Statement: Statement{SQL: q.Get("query"), Params: map[string]string{}, Settings: map[string]string{}},
		database:  first(q.Get("database"), r.Header.Get("X-ClickHouse-Database")),
		format:    first(q.Get("default_format"), r.Header.Get("X-ClickHouse-Format"), "TabSeparated"),
		readOnly:  r.Method == http.MethodGet,
	}
	for k := range q {
		if name, ok := strings.CutPrefix(k, "param_"); ok {
			req.Params[name] = q.Get(k)
		} else if !reserved.MatchString(k) {
			req.Settings[k] = q.Get(k)
		}
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		return nil, &Error{Code: 48, Message: "Code: 48. DB::Exception: External tables are not supported over this interface. (NOT_IMPLEMENTED)"}
	}
	req.bound(out)
	return req, req.readBody(r, q)
}

// bound holds an insert to its max_execution_time from the moment on which the
// server hears of it, the time in which its data comes included: a client that
// was stopped in the middle cannot go on with it later.
func (req *request) bound(out *answer) {
	seconds, err := strconv.ParseFloat(req.Settings["max_execution_time"], 64)
	if err != nil || seconds <= 0 || !insertFormat.MatchString(req.SQL) {
		return
	}
	req.until = time.Now().Add(time.Duration(seconds * float64(time.Second)))
	// A connection without deadlines is held to the same by the context.
	_ = http.NewResponseController(out.w).SetReadDeadline(req.until)
}

// readBody decides what the body is: the statement, its end, or insert data.
func (req *request) readBody(r *http.Request, q url.Values) error {
	plain, err := decoded(r, q)
	body := &sticky{r: plain}
	if err != nil {
		return &Error{Code: 271, Message: "Code: 271. DB::Exception: Cannot decompress the request's body: " + err.Error() + ". (CANNOT_DECOMPRESS)"}
	}
	if m := insertFormat.FindStringSubmatch(req.SQL); m != nil {
		if peek := bufio.NewReaderSize(body, 64<<10); notEmpty(peek) {
			req.SQL, req.insertAs, req.data = m[1], m[2], peek
			return nil
		}
	}
	text, err := io.ReadAll(io.LimitReader(body, maxStatement+1))
	if err != nil {
		return fmt.Errorf("read the statement: %w", err)
	}
	if len(text) > maxStatement {
		return &Error{Code: 62, Message: fmt.Sprintf("Code: 62. DB::Exception: The statement is longer than %d bytes; send data with the INSERT in the URL and ending in FORMAT. (SYNTAX_ERROR)", maxStatement)}
	}
	if req.SQL != "" && len(text) > 0 {
		req.SQL += "\n"
	}
	req.SQL += string(text)
	if strings.TrimSpace(req.SQL) == "" {
		return &Error{Code: 62, Message: "Code: 62. DB::Exception: Syntax error: Empty query. (SYNTAX_ERROR)"}
	}
	return nil
}

// notEmpty reports whether there is anything to read, an error included: that
// must end the insert, not make it an empty one.
func notEmpty(r *bufio.Reader) bool {
	_, err := r.Peek(1)
	return !errors.Is(err, io.EOF)
}

// decoded undoes the body's compression.
func decoded(r *http.Request, q url.Values) (io.Reader, error) {
	switch enc := r.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip":
		return gzip.NewReader(r.Body)
	default:
		return nil, fmt.Errorf("content encoding %q is not supported: use gzip, or the native lz4 or zstd", enc)
	}
	if q.Get("decompress") == "1" {
		return newBlockReader(r.Body), nil
	}
	return r.Body, nil
}

// blockReader reads ClickHouse's compressed blocks. The library under it says
// "end of file" for a block that is cut off, too; here only the end behind a
// whole block is one.
type blockReader struct {
	blocks *compress.Reader
	src    *counter
}

type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func newBlockReader(r io.Reader) *blockReader {
	src := &counter{Reader: r}
	return &blockReader{blocks: compress.NewReader(src), src: src}
}

// sticky repeats the error that ended a stream: a second look at a broken one
// must not find a clean end.
type sticky struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *sticky) Read(p []byte) (n int, err error) {
	if s.err == nil {
		n, s.err = s.r.Read(p)
	}
	return n, s.err
}

// Read implements io.Reader.
func (b *blockReader) Read(p []byte) (int, error) {
	before := b.src.n
	n, err := b.blocks.Read(p)
	switch {
	case err == nil || !errors.Is(err, io.EOF):
		return n, err
	case b.src.n == before:
		return n, io.EOF
	}
	return n, io.ErrUnexpectedEOF
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// helloRevision recognises clickhouse-go's greeting. It wants the answer in
// its own protocol revision; the revision inside decides how it reads every
// later block.
func helloRevision(r *http.Request, sql string) (int, bool) {
	if strings.TrimSpace(sql) != "SELECT displayName(), version(), revision(), timezone()" {
		return 0, false
	}
	revision, err := strconv.Atoi(r.URL.Query().Get("client_protocol_version"))
	return revision, err == nil
}

// answer writes a response: it knows whether the status line is out already,
// and compresses where the client asked for it.
type answer struct {
	w       http.ResponseWriter
	native  *compress.Writer // ClickHouse's own block compression
	gz      *gzip.Writer
	started bool
	tag     string
}

func (a *answer) prepare(r *http.Request, q url.Values) {
	h := a.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-ClickHouse-Server-Display-Name", "kedge")
	h.Set("X-ClickHouse-Timezone", "UTC")
	h.Set("X-ClickHouse-Format", first(q.Get("default_format"), "TabSeparated"))
	h.Set("X-ClickHouse-Query-Id", first(q.Get("query_id"), randomHex(16)))
	a.tag = randomHex(8)
	h.Set("X-ClickHouse-Exception-Tag", a.tag)
	switch {
	case q.Get("compress") == "1" && strings.EqualFold(q.Get("network_compression_method"), "zstd"):
		a.native = compress.NewWriter(compress.LevelZero, compress.ZSTD)
	case q.Get("compress") == "1":
		a.native = compress.NewWriter(compress.LevelZero, compress.LZ4)
	case strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && q.Get("enable_http_compression") != "0":
		h.Set("Content-Encoding", "gzip")
		a.gz = gzip.NewWriter(a.w)
	}
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func (a *answer) write(b []byte) error {
	a.started = true
	var err error
	switch {
	case a.native != nil:
		for len(b) > 0 && err == nil {
			n := min(len(b), 1<<20)
			if err = a.native.Compress(b[:n]); err == nil {
				_, err = a.w.Write(a.native.Data)
			}
			b = b[n:]
		}
	case a.gz != nil:
		_, err = a.gz.Write(b)
	default:
		_, err = a.w.Write(b)
	}
	return err
}

func (a *answer) close() error {
	if a.gz == nil {
		return nil
	}
	if !a.started {
		a.w.Header().Del("Content-Encoding")
		return nil
	}
	return a.gz.Close()
}

func (a *answer) hello(revision int, version string) error {
	str := func(s string) *proto.ColStr {
		c := &proto.ColStr{}
		c.Append(s)
		return c
	}
	rev := proto.ColUInt32{0} // plain blocks: what the engine writes
	var b proto.Buffer
	err := proto.Block{Columns: 4, Rows: 1}.EncodeBlock(&b, revision, []proto.InputColumn{
		{Name: "displayName()", Data: str("kedge")},
		{Name: "version()", Data: str(version + ".1")},
		{Name: "revision()", Data: &rev},
		{Name: "timezone()", Data: str("UTC")},
	})
	if err != nil {
		return err
	}
	return a.write(b.Buf)
}

// fail reports an error: by status and header while that is possible, else in
// the body, in the frame that newer servers use.
func (a *answer) fail(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: 1001, Message: "Code: 1001. DB::Exception: " + err.Error()}
	}
	if !a.started {
		fail(a.w, statusOf(e.Code), e)
		return
	}
	msg := strings.TrimSpace(e.Message)
	var b bytes.Buffer
	fmt.Fprintf(&b, "\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", a.tag, msg, len(msg)+1, a.tag)
	if a.write(b.Bytes()) != nil || a.close() != nil {
		return // the client is gone
	}
}

func fail(w http.ResponseWriter, status int, e *Error) {
	h := w.Header()
	h.Del("Content-Encoding")
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.Code))
	w.WriteHeader(status)
	io.WriteString(w, e.Message+"\n")
}

// statusOf maps engine codes to HTTP as a ClickHouse server does.
func statusOf(code int) int {
	switch code {
	case 62, 36, 53, 27, 6, 41, 115, 457: // syntax, arguments, types, parsing, settings, parameters
		return http.StatusBadRequest
	case 47, 60, 81, 16, 46: // unknown identifier, table, database, column, function
		return http.StatusNotFound
	case 497, 164: // not allowed, read only
		return http.StatusForbidden
	case 48:
		return http.StatusNotImplemented
	case 516:
		return http.StatusUnauthorized
	case 202, 241, 159: // too many queries, memory, time
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
