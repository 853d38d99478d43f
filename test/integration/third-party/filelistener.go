// A net/http server on descriptor 3 that ends its requests before it ends itself. Its argument is its version.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	version := os.Args[1]
	if version == "broken" {
		panic("no database to speak to")
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		pause, _ := strconv.Atoi(request.URL.Query().Get("ms"))
		time.Sleep(time.Duration(pause) * time.Millisecond)
		_ = json.NewEncoder(writer).Encode(map[string]string{"version": version})
	})}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	<-stop.Done()
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
