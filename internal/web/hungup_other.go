//go:build !unix

package web

import "net"

// hungUp cannot tell without reading here: a handler that waits does so to its
// own end.
func hungUp(*net.TCPConn) bool { return false }
