package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/event"
)

// longestRecord bounds a record's value, as Kafka's largest sensible message.
const longestRecord = 64 << 20

func unpackCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unpack", Short: "Turn records of a predictions topic into JSON lines", Args: noArgs,
		Long: "Read records' values from standard input, each behind its length (four bytes, big-endian, as kcat's %R has it), and\n" +
			"print the envelopes that they stand for, one a line. A value that is not packed is printed as it is. No server is asked.",
		Example: "  kcat -C -b 127.0.0.1:9092 -t kedge.default.predictions -e -f '%R%s' | kedge unpack",
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := bufio.NewWriter(cmd.OutOrStdout())
			err := unpackRecords(out, bufio.NewReader(cmd.InOrStdin()))
			return errors.Join(err, out.Flush())
		},
	}
}

// unpackRecords copies values to lines until the input ends.
func unpackRecords(out io.Writer, in io.Reader) error {
	for record := 0; ; record++ {
		var length int32
		if err := binary.Read(in, binary.BigEndian, &length); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("unpack record %d: its length is cut off: %w", record, err)
		}
		if length < 0 {
			continue // a record without a value
		}
		if length > longestRecord {
			return fmt.Errorf("unpack record %d: %d bytes are too many: want a length of four bytes before every value (kcat -f '%%R%%s')", record, length)
		}
		value := make([]byte, length)
		if _, err := io.ReadFull(in, value); err != nil {
			return fmt.Errorf("unpack record %d: its value of %d bytes is cut off: %w", record, length, err)
		}
		texts := [][]byte{value}
		if event.IsPacked(value) {
			var err error
			if texts, err = event.UnpackPredictions(value); err != nil {
				return fmt.Errorf("unpack record %d: %w", record, err)
			}
		}
		for _, text := range texts {
			if _, err := fmt.Fprintf(out, "%s\n", text); err != nil {
				return err
			}
		}
	}
}
