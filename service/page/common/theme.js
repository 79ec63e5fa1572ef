// The light and the dark theme: the system's setting unless the user chooses one. Colours of the theme for canvases.

import { setText } from '../i18n/language.js';
import { find } from './dom.js';
import { saveSetting } from './storage.js';

const dark = matchMedia('(prefers-color-scheme: dark)');

/** @type {Set<() => void>} called after each change of the theme */
const listeners = new Set();

/** @type {Map<string, string>} computed colours by property */
const colours = new Map();

/** Connect the button that switches; `saved-theme.js` has applied a saved choice before the first paint. */
export function startTheme() {
  const button = find('theme', HTMLButtonElement);
  button.addEventListener('click', () => {
    const chosen = isDark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = chosen;
    saveSetting('theme', chosen);
    themeChanged();
  });
  dark.addEventListener('change', themeChanged);
  setText(button, isDark() ? 'page.theme.light' : 'page.theme.dark');
}

/**
 * A colour of the current theme, as canvases accept it.
 *
 * @param {string} property such as `--text`
 */
export function themeColour(property) {
  let colour = colours.get(property);
  if (colour === undefined) {
    const probe = document.createElement('span');
    probe.style.setProperty('color', `var(${property})`);
    document.body.append(probe);
    colour = getComputedStyle(probe).color;
    probe.remove();
    colours.set(property, colour);
  }
  return colour;
}

/**
 * Call `listener` after each change of the theme.
 *
 * @param {() => void} listener
 */
export function onThemeChange(listener) {
  listeners.add(listener);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : dark.matches;
}

function themeChanged() {
  colours.clear();
  setText(find('theme', HTMLButtonElement), isDark() ? 'page.theme.light' : 'page.theme.dark');
  for (const listener of listeners) {
    listener();
  }
}
