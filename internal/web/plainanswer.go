package web

import (
	"net"
	"net/http"
	"strconv"
	"strings"
)

// plainWriter gathers an answer, so that it leaves in one write.
type plainWriter struct {
	c      *plainConn
	header http.Header
	out    []byte // the head without its length, from WriteHeader on
	body   []byte
	status int  // 0: not yet said
	typed  bool // the head has a content type
	closes bool // the head says that the connection ends
	sent   bool
	failed bool
}

// directBody is the size from which a whole body is sent from where it lies.
const directBody = 32 << 10

func (w *plainWriter) reset() {
	if w.header == nil {
		w.header = http.Header{}
	}
	clear(w.header)
	if cap(w.body) > 8*directBody {
		w.body = nil
	}
	*w = plainWriter{c: w.c, header: w.header, out: w.out[:0], body: w.body[:0]}
}

func (w *plainWriter) Header() http.Header { return w.header }

// WriteHeader takes the header as it is now, as net/http's does.
func (w *plainWriter) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	w.out = append(strconv.AppendInt(append(w.out, "HTTP/1.1 "...), int64(status), 10), ' ')
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	w.out = append(append(w.out, text...), '\r', '\n')
	dated := false
	for name, values := range w.header {
		switch name {
		case "Content-Length", "Transfer-Encoding":
			continue
		case "Content-Type":
			w.typed = true
		case "Date":
			dated = true
		case "Connection":
			w.closes = len(values) > 0 && strings.EqualFold(values[0], "close")
		}
		for _, v := range values {
			w.line(name, v)
		}
	}
	if !dated {
		w.line("Date", w.c.p.now())
	}
}

func (w *plainWriter) line(name, value string) {
	if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 { // half of what ContainsAny takes
		value = strings.NewReplacer("\r", " ", "\n", " ").Replace(value)
	}
	w.out = append(append(w.out, name...), ':', ' ')
	w.out = append(append(w.out, value...), '\r', '\n')
}

// Write takes a piece of the body. A large one that is all of it is sent at
// once, without being copied.
func (w *plainWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.sent {
		return 0, http.ErrContentLength
	}
	if !hasBody(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	whole := w.header["Content-Length"]
	if len(b) >= directBody && len(w.body) == 0 && len(whole) == 1 && whole[0] == strconv.Itoa(len(b)) {
		w.send(b)
	} else {
		w.body = append(w.body, b...)
	}
	return len(b), nil
}

func hasBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// finish sends what the handler left; false ends the connection.
func (w *plainWriter) finish() bool {
	w.WriteHeader(http.StatusOK)
	if !w.sent {
		w.send(w.body)
	}
	return !w.failed && !w.closes
}

func (w *plainWriter) send(body []byte) {
	w.sent = true
	if !w.typed && len(body) > 0 {
		w.line("Content-Type", http.DetectContentType(body))
	}
	if hasBody(w.status) {
		w.out = strconv.AppendInt(append(w.out, "Content-Length: "...), int64(len(body)), 10)
		w.out = append(w.out, '\r', '\n')
	}
	if !w.closes && w.c.p.closing.Load() {
		w.closes = true
		w.line("Connection", "close")
	}
	w.out = append(w.out, '\r', '\n')
	c := w.c
	c.writeBy = c.limit(c.tcp.SetWriteDeadline, c.writeBy, c.p.lim.Write)
	var err error
	if len(body) < directBody {
		w.out = append(w.out, body...)
		_, err = c.tcp.Write(w.out)
	} else {
		_, err = (&net.Buffers{w.out, body}).WriteTo(c.tcp)
	}
	w.failed = err != nil
}
