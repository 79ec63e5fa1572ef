// The browser's storage may be forbidden or full; then a choice lasts as long as the page.

const PREFIX = 'emotion2vec-service.';

/**
 * @param {string} name
 * @param {'localStorage' | 'sessionStorage'} [where]
 * @returns {string | null}
 */
export function recall(name, where = 'localStorage') {
  try {
    return window[where].getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {string} value
 * @param {'localStorage' | 'sessionStorage'} [where]
 */
export function remember(name, value, where = 'localStorage') {
  try {
    window[where].setItem(PREFIX + name, value);
  } catch {
    // nothing depends on it
  }
}
