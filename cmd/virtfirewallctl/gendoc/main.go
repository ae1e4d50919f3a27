// Command gendoc writes the manual pages and the shell completions that are
// installed: gendoc VERSION DIR, in the project's top directory. It is a
// program of its own so that virtfirewallctl does not carry a Markdown parser.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/cli"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gendoc VERSION DIR")
		os.Exit(2)
	}
	if err := generate(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "gendoc:", err)
		os.Exit(1)
	}
}

func generate(version, dir string) error {
	man, completions := filepath.Join(dir, "man"), filepath.Join(dir, "completions")
	// What an older version left behind must not be installed.
	for _, d := range []string{man, completions} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	root := cli.Root(version)
	root.DisableAutoGenTag = true
	// Without a title, each page has its command's.
	header := &doc.GenManHeader{Section: "1", Source: "virtfirewalld " + version, Manual: "User commands"}
	plainText(root)
	root.Long += commandList(root)
	if err := doc.GenManTree(root, header, man); err != nil {
		return fmt.Errorf("writing virtfirewallctl(1): %w", err)
	}
	if err := writtenByHand(man); err != nil {
		return err
	}
	if err := tidyAll(man); err != nil {
		return err
	}
	return complete(root, completions)
}

// plainText keeps Markdown from taking <network> for HTML, which it drops.
func plainText(cmd *cobra.Command) {
	cmd.Long = strings.ReplaceAll(cmd.Long, "<", `\<`)
	for _, sub := range cmd.Commands() {
		plainText(sub)
	}
}

// commandList returns a section for the program's own page, since the generator
// lists the commands only at the end, and without descriptions.
func commandList(root *cobra.Command) string {
	var list strings.Builder
	list.WriteString("\n\n# COMMANDS\n\n")
	for _, cmd := range usable(root) {
		name := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		_, arguments, _ := strings.Cut(cmd.Use, " ")
		if arguments != "" {
			arguments = " *" + arguments + "*"
		}
		fmt.Fprintf(&list, "**%s**%s\n: %s\n\n", name, arguments, cmd.Short)
	}
	return list.String()
}

// usable returns the commands that do something, as they are listed.
func usable(cmd *cobra.Command) (all []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		switch {
		case !sub.IsAvailableCommand():
		case sub.HasSubCommands():
			all = append(all, usable(sub)...)
		default:
			all = append(all, sub)
		}
	}
	return all
}

// writtenByHand converts docs/man/NAME.SECTION.md.
func writtenByHand(dir string) error {
	pages, err := filepath.Glob("docs/man/*.md")
	if err != nil {
		return err
	}
	if len(pages) == 0 {
		return fmt.Errorf("finding docs/man/*.md: run gendoc in the project's top directory")
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimSuffix(filepath.Base(page), ".md"))
		if err := os.WriteFile(to, md2man.Render(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func complete(root *cobra.Command, dir string) error {
	bash := filepath.Join(dir, "virtfirewallctl.bash")
	if err := root.GenBashCompletionFileV2(bash, true); err != nil {
		return fmt.Errorf("writing the completion for bash: %w", err)
	}
	if err := root.GenZshCompletionFile(filepath.Join(dir, "_virtfirewallctl")); err != nil {
		return fmt.Errorf("writing the completion for zsh: %w", err)
	}
	if err := root.GenFishCompletionFile(filepath.Join(dir, "virtfirewallctl.fish"), true); err != nil {
		return fmt.Errorf("writing the completion for fish: %w", err)
	}
	return nil
}
