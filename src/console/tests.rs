//! What every page and file of the console answers, without a browser.
