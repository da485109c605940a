package testenv

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
)

// ServeFloor answers every HTTP request with the same body, from one thread that
// does nothing else: no goroutines, no parsing, no memory. Its latency is what the
// machine and the client give, below which no server gets; a measurement that
// shows it beside another's says how much of a delay is that one's own. It listens
// on the loopback, tells ready where, and serves as long as the process lives.
func ServeFloor(body []byte, ready func(addr string)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	listener, addr, err := listenLoopback()
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	watch := func(fd int) {
		_ = syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
	}
	watch(listener)
	ready(addr)
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"), body...)
	events, buf := make([]syscall.EpollEvent, 64), make([]byte, 64<<10)
	for {
		n, err := syscall.EpollWait(poll, events, -1)
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("floor: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == listener {
				if conn, _, err := syscall.Accept(listener); err == nil {
					watch(conn)
				}
				continue
			}
			if !answerFloor(int(e.Fd), buf, answer) {
				_ = syscall.Close(int(e.Fd))
			}
		}
	}
}

// answerFloor takes what has come as one request: clients send one at a time, in
// one piece.
func answerFloor(fd int, buf, answer []byte) bool {
	n, err := syscall.Read(fd, buf)
	if err != nil || n <= 0 || !bytes.HasPrefix(buf[:n], []byte("POST ")) {
		return false
	}
	n, err = syscall.Write(fd, answer)
	return err == nil && n == len(answer)
}

func listenLoopback() (fd int, addr string, err error) {
	if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
		return 0, "", err
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = syscall.Listen(fd, 64)
	}
	if err != nil {
		return 0, "", err
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, "", err
	}
	here := at.(*syscall.SockaddrInet4)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(here.Addr), uint16(here.Port)).String(), nil
}
