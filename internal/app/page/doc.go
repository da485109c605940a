// Package page draws the overview that Kedge serves at "/": what is running,
// what arrives, how fresh it is, what is wrong, and the last hour of each view
// and model.
//
// Holds the template, the style sheet and the charts (inline SVG, coloured by
// the style sheet). Promises: the page needs nothing from elsewhere, reads well
// without scripts, in dark and light, and on a narrow screen.
//
// May not: ask for data; [Data] has everything that is shown.
package page
