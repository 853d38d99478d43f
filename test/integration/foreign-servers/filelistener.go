// A net/http server on descriptor 3. Its argument is its version.
//
// It does not end by Server.Shutdown: a connection that was accepted before Shutdown, and whose first request is read
// after it, is closed without an answer (golang/go#75591; seen with Go 1.26). So it stops accepting first, and ends when
// every connection that it has accepted has had its answer.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	version := os.Args[1]
	if version == "broken" {
		panic("no database to speak to")
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatal(err)
	}
	var connections sync.WaitGroup
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				connections.Done()
			}
		},
		Handler: http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
			pause, _ := strconv.Atoi(request.URL.Query().Get("ms"))
			time.Sleep(time.Duration(pause) * time.Millisecond)
			_ = json.NewEncoder(writer).Encode(map[string]string{"version": version})
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		log.Fatal(err)
	case <-stop.Done():
	}
	_ = listener.Close()
	<-served // From here on no connection is added.
	server.SetKeepAlivesEnabled(false)
	connections.Wait()
}
