// A Go HTTP server on an inherited listener, with nothing but the standard library: main VERSION.
//
// It drains as a careful server does: stop accepting, answer "Connection: close", and close idle connections later.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if os.Getenv("LISTEN_PID") != fmt.Sprint(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		fmt.Fprintln(os.Stderr, "no listener was passed to this process")
		os.Exit(2)
	}
	listener, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var draining atomic.Bool
	body := fmt.Sprintf("{\"version\":%q}", os.Args[1])
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprint(w, body)
	})}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go server.Serve(listener)
	<-stop
	draining.Store(true)
	listener.Close()
	time.Sleep(500 * time.Millisecond)
	server.Shutdown(context.Background())
}
