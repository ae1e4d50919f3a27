package cli

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// usualWidth is a table's width where there is no terminal.
	usualWidth = 80
	columnGap  = 2
	// leastColumn is the least width to which a column is narrowed.
	leastColumn = 8
)

// table prints rows in columns. If they are wider than the terminal, or than 80
// columns in a pipe, it wraps the cells of the columns in wrap.
func (o *output) table(rows [][]string, wrap ...int) {
	width := o.width
	if width == 0 {
		width = usualWidth
	}
	cells := printableRows(rows)
	o.layout(cells, narrowed(cells, wrap, width))
}

// fields prints names and values. It neither truncates nor wraps them: a value
// may be a command to paste.
func (o *output) fields(rows [][]string) {
	cells := printableRows(rows)
	widths := widest(cells)
	for _, row := range cells {
		o.linef("%s", joinCells(row, widths))
	}
}

func printableRows(rows [][]string) [][]string {
	out := make([][]string, len(rows))
	for i, row := range rows {
		for _, cell := range row {
			out[i] = append(out[i], printable(cell))
		}
	}
	return out
}

// widest returns the width of each column.
func widest(rows [][]string) (widths []int) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// narrowed returns widths of columns with which a row fits into width. It narrows
// those in wrap, at first only as far as no word has to be split. If that cannot
// be enough, it returns the full widths.
func narrowed(rows [][]string, wrap []int, width int) []int {
	widths := widest(rows)
	fits := slices.Clone(widths)
	for _, least := range []func(column int) int{
		func(column int) int { return longestWord(rows, column) },
		func(column int) int { return max(leastColumn, utf8.RuneCountInString(rows[0][column])) },
	} {
		for totalWidth(fits) > width {
			most := -1
			for _, i := range wrap {
				if fits[i] > least(i) && (most < 0 || fits[i] > fits[most]) {
					most = i
				}
			}
			if most < 0 {
				break
			}
			fits[most]--
		}
	}
	if totalWidth(fits) > width {
		return widths
	}
	return fits
}

func totalWidth(widths []int) int {
	total := columnGap * max(len(widths)-1, 0)
	for _, w := range widths {
		total += w
	}
	return total
}

func longestWord(rows [][]string, column int) (longest int) {
	for _, row := range rows {
		for word := range strings.SplitSeq(row[column], " ") {
			longest = max(longest, utf8.RuneCountInString(word))
		}
	}
	return longest
}

// layout prints rows whose columns have limits. On a terminal it truncates lines
// that are still too wide.
func (o *output) layout(rows [][]string, limits []int) {
	var lines [][]string
	for _, row := range rows {
		lines = append(lines, wrapped(row, limits)...)
	}
	widths := widest(lines)
	for _, line := range lines {
		o.linef("%s", truncate(joinCells(line, widths), o.width))
	}
}

// wrapped returns the lines of a row.
func wrapped(row []string, limits []int) (lines [][]string) {
	for column, cell := range row {
		for i, part := range splitCell(cell, limits[column]) {
			if i == len(lines) {
				lines = append(lines, make([]string, len(row)))
			}
			lines[i][column] = part
		}
	}
	return lines
}

// splitCell splits a cell into lines of at most width, between words if it can.
func splitCell(cell string, width int) (out []string) {
	line := ""
	for word := range strings.SplitSeq(cell, " ") {
		if joint := line + " " + word; line != "" && utf8.RuneCountInString(joint) <= width {
			line = joint
			continue
		}
		if line != "" {
			out = append(out, line)
		}
		for runes := []rune(word); ; runes = runes[width:] {
			if line = string(runes); len(runes) <= width {
				break
			}
			out = append(out, string(runes[:width]))
		}
	}
	return append(out, line)
}

// joinCells returns one line of a table.
func joinCells(row []string, widths []int) string {
	var line strings.Builder
	for i, cell := range row {
		line.WriteString(cell)
		line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+columnGap))
	}
	return strings.TrimRight(line.String(), " ")
}
