() => {
  // Pictures to choose from have no names in gradio: give them one, for screen readers.
  const word = navigator.language.startsWith("ko") ? "예시" : "example";
  const name = () =>
    document.querySelectorAll('button.gallery-item img[alt=""]').forEach((picture) => {
      const button = picture.closest("button");
      picture.alt = `${word} ${[...button.parentElement.children].indexOf(button) + 1}`;
    });
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
